"""Turns patients of a cohort into tensors: scaled genes, packed bags, masked windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat

import numpy as np
import torch
from torch import Tensor

from gimp_fast.data import Cohort
from gimp_fast.data.cohort_truth import Asked
from gimp_fast.models.inputs import PatientInputs, Presence, map_tensors, on_device
from gimp_fast.models.linear_part import LINEAR_INPUTS
from gimp_fast.ops.masks import Masked
from gimp_fast.training.covariate_scaling import CovariateScaler
from gimp_fast.training.loader import StepPlan
from gimp_fast.training.scaling import GeneScaler
from gimp_fast.training.slide_scaling import SlideScaler

# Flags of what a model is not shown of a patient; they can be added up.
HIDE_NOTHING, HIDE_SLIDES, HIDE_RNA, HIDE_COVARIATES = 0, 1, 2, 4


@dataclass(frozen=True)
class _Batch:
    """Tensors of one step. Patches keep the dtype in which they are stored."""

    case_ids: tuple[str, ...]
    truth: Tensor  # (B,) or (B, ·), see PatientReader.truth; −1 where it is not read

    def to(self, device: torch.device) -> _Batch:
        return on_device(self, device)

    def pin_memory(self) -> _Batch:
        """A copy in page-locked memory, from which a GPU can copy asynchronously."""
        return map_tensors(self, Tensor.pin_memory)

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Tell the GPU's allocator that another stream uses the tensors, too."""

        def record(tensor: Tensor) -> Tensor:
            if tensor.is_cuda:
                tensor.record_stream(stream)
            return tensor

        map_tensors(self, record)


@dataclass(frozen=True)
class GeneBatch(_Batch):
    """RNA of patients who have it: ``genes`` (B, G), scaled."""

    genes: Tensor


@dataclass(frozen=True)
class PatientBatch(_Batch):
    """Whole patients, of whom some may lack a modality."""

    inputs: PatientInputs

    def to(self, device: torch.device) -> PatientBatch:
        return replace(self, truth=self.truth.to(device), inputs=self.inputs.to(device))


@dataclass(frozen=True)
class WindowBatch(_Batch):
    """Masked windows of slides, for pre-training."""

    genes: Tensor | None  # (B, G) scaled expression, zero where absent; None for a slide-only run
    rna: Presence
    patches: Tensor  # (B, L, C) contiguous windows
    masked: Masked  # (B, L)


@dataclass(frozen=True)
class ViewBatch(_Batch):
    """Several windows of each slide beside its RNA, for models that align the two."""

    genes: Tensor  # (B, G) scaled expression
    patches: Tensor  # (B, V, L, C) contiguous windows


class PatientReader:
    """Reads patients of a cohort as tensors; keeps features, and harmonised genes, if they fit.

    A packed store is not kept: the page cache of the system holds it once for all processes.

    Args:
        cohort: an open cohort.
        modalities: ``"both"``, ``"slide"`` or ``"rna"``.
        scaler: fitted on the training patients; None for a slide-only run.
        cache_gb: features of the whole cohort stay in memory if they take less, as float32; so do
            harmonised genes.
        labelled: False for patients to predict, whose classes are not read.
        feature_dim: channels that the model reads; None for those of the cohort, which has none
            without slides.
        slide_scaler: of patch embeddings; None leaves them as they are.
        target: the cohort's target that is read; None for its labels. Several are a tuple.
        covariates: fitted on the training patients; None for a model that reads none.

    Attributes:
        crossed: training patient -> what a linear part that was fitted on others adds (4,); None
            for a model without one.
    """

    def __init__(
        self,
        cohort: Cohort,
        modalities: str,
        scaler: GeneScaler | None,
        cache_gb: float,
        labelled: bool = True,
        feature_dim: int | None = None,
        slide_scaler: SlideScaler | None = None,
        target: Asked = None,
        covariates: CovariateScaler | None = None,
    ):
        self.cohort, self.labelled, self.slide_scaler = cohort, labelled, slide_scaler
        self.target, self.covariates = target, covariates
        self.crossed: Mapping[str, np.ndarray] | None = None
        self.feature_dim = cohort.feature_dim if feature_dim is None else feature_dim
        self.uses_slides = modalities != "rna"
        self.uses_genes = modalities != "slide"
        self.scaler = scaler
        total = sum(cohort.bag(c).num_patches for c in cohort.case_ids if cohort.has_slides(c))
        self.fits_in_memory = total * cohort.feature_dim * 4 <= cache_gb * 1e9
        keeps = self.fits_in_memory and cohort.store is None
        self._cache: dict[str, Tensor] | None = {} if keeps else None
        # Harmonising sorts the genes of a patient, which would take longer than the step of an SNN.
        sorts = scaler is not None and scaler.harmonise != "none"
        keeps = sorts and len(cohort.case_ids) * scaler.mean.nbytes <= cache_gb * 1e9
        self._genes: dict[str, np.ndarray] | None = {} if keeps else None

    def __getstate__(self) -> dict:
        """Without the cache: reading processes keep nothing."""
        return vars(self) | {"_cache": None, "_genes": None}

    def patches(self, case_id: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Contiguous rows of the patient's bag, (rows, C), scaled if there is a scaler.

        Otherwise they have the dtype of the store, or are float32.
        """
        if self._cache is None:
            return self._scaled(self.cohort.bag(case_id).tensor(start, stop))
        if case_id not in self._cache:
            self._cache[case_id] = self._scaled(self.cohort.bag(case_id).tensor())
        return self._cache[case_id][start:stop]

    def _scaled(self, patches: Tensor) -> Tensor:
        return patches if self.slide_scaler is None else self.slide_scaler(patches)

    def truth(self, case_ids: Sequence[str]) -> Tensor:
        """(B,) int64 classes, or float64 as :meth:`Cohort.truth` gives another target."""
        if not self.labelled:
            return torch.full((len(case_ids),), -1)
        return torch.from_numpy(self.cohort.truth(case_ids, self.target))

    def genes(self, case_ids: Sequence[str]) -> tuple[Tensor | None, list[bool]]:
        """Scaled expression (B, G), zero where absent, and who has it."""
        has_genes = [self.uses_genes and self.cohort.has_expression(c) for c in case_ids]
        if not self.uses_genes:
            return None, has_genes
        genes = torch.zeros(len(case_ids), len(self.scaler.mean))
        with_rna = [c for c, has in zip(case_ids, has_genes, strict=True) if has]
        if with_rna:
            scaled = self._scaled_genes(with_rna)
            genes[torch.tensor(has_genes)] = torch.from_numpy(scaled)
        return genes, has_genes

    def _scaled_genes(self, case_ids: Sequence[str]) -> np.ndarray:
        """(n, G), scaled, of patients who have RNA."""
        if self._genes is None:
            return self.scaler(self.cohort.expression(case_ids))
        new = [case for case in dict.fromkeys(case_ids) if case not in self._genes]
        if new:
            scaled = self.scaler(self.cohort.expression(new))
            self._genes |= dict(zip(new, scaled, strict=True))
        return np.stack([self._genes[case] for case in case_ids])

    def inputs(self, case_ids: Sequence[str], hide: np.ndarray | None = None) -> PatientInputs:
        """What a model reads of whole patients, on the CPU.

        Args:
            case_ids: B ids.
            hide: (B,) int, sums of ``HIDE_SLIDES``, ``HIDE_RNA`` and ``HIDE_COVARIATES``. Of slides
                and RNA, a patient's only one is never hidden.
        """
        hide = np.zeros(len(case_ids), int) if hide is None else hide
        genes, has_genes = self.genes(case_ids)
        has_slide = [self.uses_slides and self.cohort.has_slides(c) for c in case_ids]
        for place, hidden in enumerate(hide.tolist()):
            if has_genes[place] and has_slide[place]:
                has_slide[place] = not hidden & HIDE_SLIDES
                has_genes[place] = not hidden & HIDE_RNA
        if genes is not None:
            genes[~torch.tensor(has_genes)] = 0  # hidden also from a model that ignores the flags
        bags = None
        if self.uses_slides:
            bags = [self.patches(c) if has_slide[n] else None for n, c in enumerate(case_ids)]
        covariates = self._covariates(case_ids, (hide & HIDE_COVARIATES).astype(bool))
        return PatientInputs.packed(
            bags, genes, has_genes, feature_dim=self.feature_dim, covariates=covariates
        )

    def _covariates(self, case_ids: Sequence[str], hidden: np.ndarray) -> Tensor | None:
        """(B, D); hidden ones, (B,) bool, are encoded as those of a patient who has none."""
        if self.covariates is None:
            return None
        encoded = self.covariates(self.cohort.covariates, case_ids)
        encoded[hidden] = self.covariates({}, case_ids)[hidden]
        return torch.from_numpy(encoded)

    def window(
        self, case_id: str, length: int, mask_ratio: float, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """A random contiguous window of the bag and its random mask (GiMP section 2.3).

        A bag shorter than the window is repeated from its start. A masked patch is masked in all
        its copies, because a copy would reveal it. A bag of one patch is not masked.

        Args:
            case_id: the patient.
            length: L.
            mask_ratio: share of the distinct patches to mask.
            rng: draws the start and the mask.

        Returns:
            patches (L, C), in the dtype of ``patches``, and mask (L,) bool, True = masked.
        """
        total = self.cohort.bag(case_id).num_patches
        distinct = min(total, length)
        start = int(rng.integers(total - distinct + 1))
        patches = self.patches(case_id, start, start + distinct)
        masked = np.zeros(distinct, bool)
        masked[rng.permutation(distinct)[: round(mask_ratio * distinct)]] = distinct > 1
        masked = torch.from_numpy(masked)
        if distinct == length:
            return patches, masked
        copies = torch.arange(length) % distinct
        return patches[copies], masked[copies]


# A stage reads the batch of a step by one of these, with all arguments but the last fixed by
# functools.partial, which other processes can unpickle.


def read_genes(reader: PatientReader, plan: StepPlan) -> GeneBatch:
    """RNA of patients who have it."""
    genes, _ = reader.genes(plan.case_ids)
    return GeneBatch(plan.case_ids, reader.truth(plan.case_ids), genes)


def read_windows(
    reader: PatientReader, length: int, mask_ratio: float, plan: StepPlan
) -> WindowBatch:
    """A masked window of ``length`` patches of each patient."""
    cases = plan.case_ids
    windows = map(reader.window, cases, repeat(length), repeat(mask_ratio), plan.rngs())
    patches, masked = (torch.stack(parts) for parts in zip(*windows, strict=True))
    genes, has_genes = reader.genes(cases)
    rna = Presence.of(has_genes)
    return WindowBatch(cases, reader.truth(cases), genes, rna, patches, Masked.of(masked))


def read_views(reader: PatientReader, length: int, count: int, plan: StepPlan) -> ViewBatch:
    """``count`` windows of ``length`` patches of each patient."""
    cases = plan.case_ids
    views = [
        torch.stack([reader.window(case, length, 0.0, rng)[0] for _ in range(count)])
        for case, rng in zip(cases, plan.rngs(), strict=True)
    ]
    return ViewBatch(cases, reader.truth(cases), reader.genes(cases)[0], torch.stack(views))


def read_patients(reader: PatientReader, modality_dropout: float, plan: StepPlan) -> PatientBatch:
    """Whole patients; hides slides or RNA of some of those who have both, and some's covariates."""
    hide = None
    if modality_dropout:
        hide = _hidden(modality_dropout, plan, reader.covariates is not None)
    return _whole_patients(reader, plan, hide)


def read_shown(reader: PatientReader, hide: int, plan: StepPlan) -> PatientBatch:
    """Whole patients without what is hidden of each, as in :meth:`PatientReader.inputs`."""
    return _whole_patients(reader, plan, np.full(len(plan.case_ids), hide))


def _whole_patients(reader: PatientReader, plan: StepPlan, hide: np.ndarray | None) -> PatientBatch:
    inputs = reader.inputs(plan.case_ids, hide)
    if reader.crossed is not None:
        inputs = replace(inputs, linear=_crossed(reader.crossed, plan.case_ids, inputs))
    return PatientBatch(plan.case_ids, reader.truth(plan.case_ids), inputs)


def _crossed(
    known: Mapping[str, np.ndarray], case_ids: Sequence[str], inputs: PatientInputs
) -> Tensor:
    """(B, 4); nothing of slides or RNA that are hidden. Hidden covariates still count."""
    found = torch.from_numpy(np.stack([known[case] for case in case_ids]))
    shown = {"slide": inputs.slide, "amount": inputs.slide, "rna": inputs.rna}
    for column, name in enumerate(LINEAR_INPUTS):
        if name in shown:
            found[~shown[name].mask, column] = 0
    return found


def _hidden(probability: float, plan: StepPlan, covariates: bool) -> np.ndarray:
    """(B,) int, as ``hide`` of :meth:`PatientReader.inputs`; covariates are drawn apart."""
    shares, rngs = [1 - probability, probability / 2, probability / 2], plan.rngs()
    hide = np.array([rng.choice([HIDE_NOTHING, HIDE_SLIDES, HIDE_RNA], p=shares) for rng in rngs])
    if covariates:
        hide += HIDE_COVARIATES * np.array([rng.random() < probability for rng in rngs])
    return hide
