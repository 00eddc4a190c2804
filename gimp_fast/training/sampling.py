"""From a cohort to tensors: scaled genes, packed bags, masked windows, repeatable order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gimp_fast.data import Cohort


@dataclass(frozen=True)
class GeneScaler:
    """z = (x − mean) / std, fitted on training patients only.

    Attributes:
        mean, std: (G,) float32. A gene that does not vary has std 1.
    """

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def fit(cls, expression: np.ndarray) -> GeneScaler:
        """Fit on (patients, G)."""
        std = expression.std(0, dtype=np.float64)
        std[std < 1e-6] = 1.0
        mean = expression.mean(0, dtype=np.float64)
        return cls(mean.astype(np.float32), std.astype(np.float32))

    def __call__(self, expression: np.ndarray) -> np.ndarray:
        """(patients, G) -> (patients, G) float32."""
        return (expression - self.mean) / self.std


@dataclass(frozen=True)
class PatientBatch:
    """Patients of one step; B patients, of whom some may lack a modality.

    Attributes:
        case_ids: B ids.
        labels: (B,) int64.
        genes: (B, G) scaled expression, zero where absent; None for a slide-only run.
        has_genes: (B,) bool, True = present.
        patches: (T, C) packed patches of the patients that have any; None for an RNA-only run.
        cu_seqlens: (bags + 1,) int32 bounds of the packed bags.
        has_slide: (B,) bool, True = present; its True rows are the bags.
    """

    case_ids: tuple[str, ...]
    labels: Tensor
    genes: Tensor | None
    has_genes: Tensor
    patches: Tensor | None
    cu_seqlens: Tensor | None
    has_slide: Tensor

    def inputs(self) -> dict[str, Tensor | None]:
        """Keyword arguments of ``GiMP.forward``."""
        return {
            "patches": self.patches,
            "cu_seqlens": self.cu_seqlens,
            "genes": self.genes,
            "has_slide": self.has_slide,
            "has_genes": self.has_genes,
        }

    def to(self, device: torch.device) -> PatientBatch:
        moved = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)


class PatientReader:
    """Reads patients of a cohort as tensors; keeps features in memory where they fit.

    Args:
        cohort: an open cohort.
        modalities: ``"both"``, ``"slide"`` or ``"rna"``.
        scaler: fitted on the training patients; None for a slide-only run.
        cache_gb: features of the whole cohort, as float32, below which they stay in memory.
    """

    def __init__(self, cohort: Cohort, modalities: str, scaler: GeneScaler | None, cache_gb: float):
        self.cohort = cohort
        self.uses_slides = modalities != "rna"
        self.uses_genes = modalities != "slide"
        self.scaler = scaler
        total = sum(cohort.bag(c).num_patches for c in cohort.case_ids if cohort.has_slides(c))
        self._cache: dict[str, np.ndarray] | None = None
        if total * cohort.feature_dim * 4 <= cache_gb * 1e9:
            self._cache = {}

    def usable(self, case_id: str) -> bool:
        """Whether the patient has at least one of the run's modalities."""
        return (self.uses_slides and self.cohort.has_slides(case_id)) or (
            self.uses_genes and self.cohort.has_expression(case_id)
        )

    def patches(self, case_id: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Contiguous rows of the patient's bag, (rows, C) float32."""
        if self._cache is None:
            return self.cohort.bag(case_id).read(start, stop)
        if case_id not in self._cache:
            self._cache[case_id] = self.cohort.bag(case_id).read()
        return self._cache[case_id][start:stop]

    def labels(self, case_ids: Sequence[str]) -> Tensor:
        return torch.tensor([self.cohort.label(c) for c in case_ids])

    def genes(self, case_ids: Sequence[str]) -> tuple[Tensor | None, Tensor]:
        """Scaled expression (B, G), zero where absent, and who has it (B,)."""
        present = torch.tensor(
            [self.uses_genes and self.cohort.has_expression(c) for c in case_ids]
        )
        if not self.uses_genes:
            return None, present
        genes = torch.zeros(len(case_ids), len(self.cohort.gene_ids))
        with_rna = [c for c, has in zip(case_ids, present.tolist(), strict=True) if has]
        if with_rna:
            scaled = self.scaler(self.cohort.expression(with_rna))
            genes[present] = torch.from_numpy(scaled)
        return genes, present

    def batch(self, case_ids: Sequence[str], hide: np.ndarray | None = None) -> PatientBatch:
        """Whole patients.

        Args:
            case_ids: B ids.
            hide: (B,) of 0 nothing, 1 the slides, 2 the RNA: modality dropout. A patient's only
                modality is never hidden.
        """
        genes, has_genes = self.genes(case_ids)
        has_slide = torch.tensor([self.uses_slides and self.cohort.has_slides(c) for c in case_ids])
        if hide is not None:
            both = has_genes & has_slide
            has_slide &= ~(both & torch.from_numpy(hide == 1))
            has_genes &= ~(both & torch.from_numpy(hide == 2))
        patches = cu_seqlens = None
        if self.uses_slides:
            shown = zip(case_ids, has_slide.tolist(), strict=True)
            bags = [self.patches(c) for c, has in shown if has]
            cu_seqlens = torch.tensor([0, *map(len, bags)]).cumsum(0).int()
            width = self.cohort.feature_dim
            patches = torch.from_numpy(np.concatenate([np.empty((0, width), np.float32), *bags]))
        return PatientBatch(
            tuple(case_ids), self.labels(case_ids), genes, has_genes, patches, cu_seqlens, has_slide
        )

    def window(
        self, case_id: str, length: int, mask_ratio: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """A random contiguous window of the bag and its random mask (GiMP section 2.3).

        A bag shorter than the window is repeated from its start; a masked patch is masked in all
        its copies, which would otherwise show the answer. A bag of one patch is not masked.

        Args:
            length: L.
            mask_ratio: part of the distinct patches to mask.
            rng: source of the start and the mask.

        Returns:
            patches (L, C) float32 and mask (L,) bool, True = masked.
        """
        total = self.cohort.bag(case_id).num_patches
        distinct = min(total, length)
        start = int(rng.integers(total - distinct + 1))
        patches = self.patches(case_id, start, start + distinct)
        masked = np.zeros(distinct, bool)
        masked[rng.permutation(distinct)[: round(mask_ratio * distinct)]] = distinct > 1
        copies = np.arange(length) % distinct
        return patches[copies], masked[copies]


def batches(
    case_ids: Sequence[str], batch_size: int, rng: np.random.Generator | None = None
) -> Iterator[list[str]]:
    """Batches of case ids, shuffled where a generator is given.

    The sizes of the batches differ by at most one: a last batch of a single patient holds no
    triplet.
    """
    order = list(case_ids) if rng is None else [case_ids[i] for i in rng.permutation(len(case_ids))]
    for part in np.array_split(np.arange(len(order)), num_batches(len(order), batch_size)):
        yield [order[i] for i in part]


def num_batches(num_patients: int, batch_size: int) -> int:
    return max(1, -(-num_patients // batch_size))
