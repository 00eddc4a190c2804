"""From a cohort to tensors: scaled genes, packed bags, masked windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gimp_fast.data import Cohort
from gimp_fast.training.scaling import GeneScaler


@dataclass(frozen=True)
class _Batch:
    """Tensors of one step. Patches travel in the type in which they are stored."""

    case_ids: tuple[str, ...]
    labels: Tensor

    def to(self, device: torch.device) -> _Batch:
        """On a device; patches become float32 there, so that half as many bytes travel."""
        moved = self._each(lambda tensor: tensor.to(device, non_blocking=True))
        patches = getattr(moved, "patches", None)
        return moved if patches is None else replace(moved, patches=patches.float())

    def pin_memory(self) -> _Batch:
        """In page-locked memory, from which a GPU reads while the processor goes on."""
        return self._each(Tensor.pin_memory)

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Tell the GPU's allocator that another stream than the copying one uses the tensors."""
        for value in vars(self).values():
            if isinstance(value, Tensor) and value.is_cuda:
                value.record_stream(stream)

    def _each(self, function) -> _Batch:
        tensors = {k: function(v) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **tensors)


@dataclass(frozen=True)
class GeneBatch(_Batch):
    """RNA of patients who have it.

    Attributes:
        case_ids: B ids.
        labels: (B,) int64.
        genes: (B, G) scaled expression.
    """

    genes: Tensor


@dataclass(frozen=True)
class PatientBatch(_Batch):
    """Whole patients; B of them, of whom some may lack a modality.

    Attributes:
        case_ids: B ids.
        labels: (B,) int64.
        genes: (B, G) scaled expression, zero where absent; None for a slide-only run.
        has_genes: (B,) bool, True = present.
        patches: (T, C) packed patches of the patients that have any; None for an RNA-only run.
        cu_seqlens: (bags + 1,) int32 bounds of the packed bags.
        has_slide: (B,) bool, True = present; its True rows are the bags.
    """

    genes: Tensor | None
    has_genes: Tensor
    patches: Tensor | None
    cu_seqlens: Tensor | None
    has_slide: Tensor

    def inputs(self) -> dict[str, Tensor | None]:
        """Keyword arguments of a model's ``forward``."""
        return {
            "patches": self.patches,
            "cu_seqlens": self.cu_seqlens,
            "genes": self.genes,
            "has_slide": self.has_slide,
            "has_genes": self.has_genes,
        }


@dataclass(frozen=True)
class WindowBatch(_Batch):
    """Masked windows of slides, for pre-training.

    Attributes:
        case_ids: B ids.
        labels: (B,) int64.
        genes: (B, G) scaled expression, zero where absent; None for a slide-only run.
        has_genes: (B,) bool, True = present.
        patches: (B, L, C) contiguous windows.
        masked: (B, L) bool, True = masked.
    """

    genes: Tensor | None
    has_genes: Tensor
    patches: Tensor
    masked: Tensor


@dataclass(frozen=True)
class ViewBatch(_Batch):
    """Several windows of each slide beside its RNA, for models that align the two.

    Attributes:
        case_ids: B ids.
        labels: (B,) int64.
        genes: (B, G) scaled expression.
        patches: (B, V, L, C) contiguous windows.
    """

    genes: Tensor
    patches: Tensor


class PatientReader:
    """Reads patients of a cohort as tensors; keeps features in memory where they fit.

    A packed store is not kept: the system's page cache holds it, once for all processes.

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
        self.fits_in_memory = total * cohort.feature_dim * 4 <= cache_gb * 1e9
        keeps = self.fits_in_memory and cohort.store is None
        self._cache: dict[str, Tensor] | None = {} if keeps else None

    def __getstate__(self) -> dict:
        """Without the cache: a process that reads for others keeps nothing."""
        return vars(self) | {"_cache": None}

    def usable(self, case_id: str) -> bool:
        """Whether the patient has at least one of the run's modalities."""
        return (self.uses_slides and self.cohort.has_slides(case_id)) or (
            self.uses_genes and self.cohort.has_expression(case_id)
        )

    def patches(self, case_id: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Contiguous rows of the patient's bag, (rows, C) in the type of the store or float32."""
        if self._cache is None:
            return self.cohort.bag(case_id).tensor(start, stop)
        if case_id not in self._cache:
            self._cache[case_id] = self.cohort.bag(case_id).tensor()
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
        genes = torch.zeros(len(case_ids), len(self.scaler.mean))
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
            patches = torch.cat(bags) if bags else torch.empty(0, self.cohort.feature_dim)
        labels = self.labels(case_ids)
        return PatientBatch(
            tuple(case_ids), labels, genes, has_genes, patches, cu_seqlens, has_slide
        )

    def windows(
        self,
        case_ids: Sequence[str],
        length: int,
        mask_ratio: float,
        rngs: Sequence[np.random.Generator],
    ) -> WindowBatch:
        """A window of each patient, drawn with a generator of its own; see ``window``."""
        drawn = [
            self.window(case, length, mask_ratio, rng)
            for case, rng in zip(case_ids, rngs, strict=True)
        ]
        patches, masked = (torch.stack(parts) for parts in zip(*drawn, strict=True))
        genes, has_genes = self.genes(case_ids)
        labels = self.labels(case_ids)
        return WindowBatch(tuple(case_ids), labels, genes, has_genes, patches, masked)

    def views(
        self,
        case_ids: Sequence[str],
        length: int,
        count: int,
        rngs: Sequence[np.random.Generator],
    ) -> ViewBatch:
        """``count`` windows of each patient, unmasked, drawn with a generator of its own."""
        drawn = [
            torch.stack([self.window(case, length, 0.0, rng)[0] for _ in range(count)])
            for case, rng in zip(case_ids, rngs, strict=True)
        ]
        genes, _ = self.genes(case_ids)
        return ViewBatch(tuple(case_ids), self.labels(case_ids), genes, torch.stack(drawn))

    def window(
        self, case_id: str, length: int, mask_ratio: float, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """A random contiguous window of the bag and its random mask (GiMP section 2.3).

        A bag shorter than the window is repeated from its start; a masked patch is masked in all
        its copies, which would otherwise show the answer. A bag of one patch is not masked.

        Args:
            case_id: the patient.
            length: L.
            mask_ratio: part of the distinct patches to mask.
            rng: source of the start and the mask.

        Returns:
            patches (L, C), as ``patches`` gives them, and mask (L,) bool, True = masked.
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
