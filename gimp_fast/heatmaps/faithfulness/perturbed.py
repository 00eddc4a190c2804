"""What a model says of one patient as some patches or genes are taken away."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from gimp_fast.heatmaps.one_target import question
from gimp_fast.heatmaps.protocols import ExplainedModel
from gimp_fast.models import PatientInputs
from gimp_fast.ops.packing import lengths_within

# Patches of a batch. A long slide has more, and is computed alone.
_ROWS = 16_384


class Perturbed(ABC):
    """One patient, of whom a model sees only some patches, or only some genes.

    Args:
        trained: the model, in fp32.
        inputs: the patient, on the device of the model.

    Attributes:
        size: patches or genes of the patient; 0 without any.
        least: how many of them must stay.
    """

    size: int
    least: int

    def __init__(self, trained: ExplainedModel, inputs: PatientInputs):
        self._trained, self._inputs = trained, inputs

    @property
    def removable(self) -> int:
        """How many can be taken away."""
        return max(self.size - self.least, 0)

    @cached_property
    def full(self) -> np.ndarray:
        """(columns,) float64, the model's predictions of the whole patient."""
        return self._predictions([np.arange(self.size)])[0]

    def predictions(self, kept: Sequence[np.ndarray]) -> np.ndarray:
        """(n, columns) float64, the model's predictions if only these places are kept.

        Args:
            kept: n arrays of places, in any order: what stays is read in the order of the patient.
        """
        found = np.tile(self.full, (len(kept), 1))
        partly = [row for row, places in enumerate(kept) if len(places) < self.size]
        if partly:
            found[partly] = self._predictions([kept[row] for row in partly])
        return found

    @torch.no_grad()
    def _predictions(self, kept: Sequence[np.ndarray]) -> np.ndarray:
        target, place = question(self._trained)
        parts, first = [], 0
        for count in lengths_within([self._rows(places) for places in kept], _ROWS):
            seen = [torch.from_numpy(np.sort(p)) for p in kept[first : first + count]]
            outputs = self._trained.model(self._batch(seen))[:, place].float()
            parts.append(target.reported(target.predictions(outputs).cpu().numpy()))
            first += count
        return np.concatenate(parts).astype(np.float64)

    def _batch(self, kept: Sequence[Tensor]) -> PatientInputs:
        """The patient as seen through each of the sorted places."""
        one, count = self._inputs, len(kept)
        batch = PatientInputs.packed(
            self._bags(kept) if one.has_bags else None,
            None if one.genes is None else self._genes(kept),
            one.rna.flags * count,
            feature_dim=one.patches.shape[1] if one.has_bags else 0,
            covariates=None if one.covariates is None else one.covariates.expand(count, -1),
        )
        return batch.to(one.device)

    @abstractmethod
    def _rows(self, places: np.ndarray) -> int:
        """Patches that the model reads if these places are kept."""

    def _bags(self, kept: Sequence[Tensor]) -> list[Tensor]:
        return [self._inputs.patches] * len(kept)

    def _genes(self, kept: Sequence[Tensor]) -> Tensor:
        return self._inputs.genes.expand(len(kept), -1)


class WithoutPatches(Perturbed):
    """A patient without some patches: they are gone from the bag, and what is left closes up.

    A model has no answer for a bag without patches, so one stays.
    """

    least = 1

    def __init__(self, trained: ExplainedModel, inputs: PatientInputs):
        super().__init__(trained, inputs)
        self.size = len(inputs.patches) if inputs.has_bags else 0

    def _rows(self, places: np.ndarray) -> int:
        return len(places)

    def _bags(self, kept: Sequence[Tensor]) -> list[Tensor]:
        patches = self._inputs.patches
        return [patches.index_select(0, places.to(patches.device)) for places in kept]


class WithoutGenes(Perturbed):
    """A patient of whom some genes are not known: they have the mean of training, z = 0."""

    least = 0

    def __init__(self, trained: ExplainedModel, inputs: PatientInputs):
        super().__init__(trained, inputs)
        self.size = 0 if inputs.present_genes is None else inputs.genes.shape[1]

    def _rows(self, places: np.ndarray) -> int:
        return len(self._inputs.patches) if self._inputs.has_bags else 1

    def _genes(self, kept: Sequence[Tensor]) -> Tensor:
        genes = torch.zeros_like(self._inputs.genes).repeat(len(kept), 1)
        for row, places in zip(genes, kept, strict=True):
            row[places] = self._inputs.genes[0, places]
        return genes
