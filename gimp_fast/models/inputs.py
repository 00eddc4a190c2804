"""The inputs of a model for a batch of patients, in one object that is made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from gimp_fast.ops.masks import Masked
from gimp_fast.ops.packing import Bags, aligned, as_bags


@dataclass(frozen=True, eq=False)
class Presence:
    """Which of B patients have a modality, known on the CPU and on the device."""

    flags: tuple[bool, ...]  # one for each patient
    mask: Tensor  # (B,) bool on the device, True = present
    index: Tensor  # (present,) int64 on the device, the patients who have it, in order

    @classmethod
    def of(cls, flags: Sequence[bool], device: torch.device | str = "cpu") -> Presence:
        """Presence from one flag per patient."""
        flags = tuple(map(bool, flags))
        index = [place for place, has in enumerate(flags) if has]
        return cls(
            flags,
            torch.tensor(flags, dtype=torch.bool, device=device),
            torch.tensor(index, dtype=torch.int64, device=device),
        )

    def __len__(self) -> int:
        return len(self.flags)

    def split(self, lengths: Sequence[int]) -> Iterator[Presence]:
        """The presence of neighbours, so many at a time."""
        bounds = accumulate(lengths, initial=0)
        flags = [self.flags[start:stop] for start, stop in pairwise(bounds)]
        parts = {some: Presence.of(some, self.mask.device) for some in set(flags)}
        return map(parts.__getitem__, flags)

    @property
    def count(self) -> int:
        return sum(self.flags)

    @property
    def everybody(self) -> bool:
        """True if no patient lacks the modality."""
        return all(self.flags)

    def rows_of(self, values: Tensor) -> Tensor:
        """The rows of patients who have the modality: (B, …) -> (present, …)."""
        return values if self.everybody else values.index_select(0, self.index)

    def fill(self, rows: Tensor | None, token: Tensor) -> Tensor:
        """Rows of all patients (B, d), with the token for those who lack the modality.

        Args:
            rows: (present, d), of the patients who have it; None if nobody has.
            token: (d,), learned.
        """
        if rows is None:
            return token.expand(len(self), -1)
        return token.to(rows.dtype).expand(len(self), -1).index_copy(0, self.index, rows)


@dataclass(frozen=True, eq=False)
class PatientInputs:
    """B patients as a model reads them. Models ignore a modality that they do not use."""

    patches: Tensor | None  # (T, C), packed, of the patients who have a slide; None without any
    bags: Bags | None  # one for each patient who has a slide; None without patches
    genes: Tensor | None  # (B, G) scaled; rows without RNA are not read; None without any RNA
    slide: Presence
    rna: Presence
    covariates: Tensor | None = None  # (B, D), missing ones marked; None for a model without any
    # (B, 4), what the linear part adds, where training knows it from other patients; else None
    linear: Tensor | None = None

    @classmethod
    def of(
        cls,
        patches: Tensor | None = None,
        cu_seqlens: Tensor | Bags | None = None,
        genes: Tensor | None = None,
        *,
        has_slide: Sequence[bool] | Tensor | None = None,
        has_genes: Sequence[bool] | Tensor | None = None,
        covariates: Tensor | None = None,
    ) -> PatientInputs:
        """Inputs from tensors on one device.

        Args:
            patches: (T, C) packed patches.
            cu_seqlens: (bags + 1,) bounds of the packed bags, or bags; None for a single bag.
            genes: (B, G) scaled expression.
            has_slide: (B,) bool, True = present; None if all patients have one (with patches) or
                none has. The patients who have a slide are the bags, in order.
            has_genes: (B,) bool, True = present; None if all patients have RNA (with genes) or none
                has.
            covariates: (B, D) encoded clinical covariates.

        Raises:
            ValueError: no modality at all, bounds that do not fit, or a number of bags that is not
                the number of patients with a slide.
        """
        tensor = genes if patches is None else patches
        if tensor is None:
            raise ValueError("found neither patches nor genes; expected at least one of them")
        bags = None
        if patches is not None:
            if cu_seqlens is None:
                cu_seqlens = Bags.of_lengths([len(patches)])
            bags = as_bags(cu_seqlens, len(patches)).to(patches.device)
        count = next(len(x) for x in (has_slide, has_genes, genes, bags) if x is not None)
        if genes is not None and len(genes) != count:
            raise ValueError(f"found genes of {len(genes)} patients; expected {count}")
        slide = _presence(has_slide, count, bags is not None and len(bags) > 0, tensor.device)
        rna = _presence(has_genes, count, genes is not None, tensor.device)
        if bags is not None and len(bags) != slide.count:
            raise ValueError(f"found {len(bags)} bags for {slide.count} patients with a slide")
        if covariates is not None and len(covariates) != count:
            raise ValueError(f"found covariates of {len(covariates)} patients; expected {count}")
        return cls(patches, bags, genes, slide, rna, covariates)

    @classmethod
    def packed(
        cls,
        bags: Sequence[Tensor | None] | None,
        genes: Tensor | None,
        has_genes: Sequence[bool],
        *,
        feature_dim: int,
        covariates: Tensor | None = None,
    ) -> PatientInputs:
        """From a bag for each patient, on the CPU.

        Args:
            bags: B bags (N, C), None for a patient without slides; None if no slides are read.
            genes: (B, G) scaled expression, with any values for patients without RNA; None if no
                RNA is read.
            has_genes: (B,) bool, True = present.
            feature_dim: C.
            covariates: (B, D); None if none are read.
        """
        rna = Presence.of(has_genes)
        if bags is None:
            return cls(None, None, genes, Presence.of([False] * len(rna)), rna, covariates)
        present = [bag for bag in bags if bag is not None]
        patches = present[0] if len(present) == 1 else torch.empty(0, feature_dim)
        if len(present) > 1:
            patches = torch.cat(present)
        slide = Presence.of([bag is not None for bag in bags])
        return cls(patches, Bags.of_lengths(map(len, present)), genes, slide, rna, covariates)

    def __len__(self) -> int:
        return len(self.slide)

    @property
    def device(self) -> torch.device:
        return self.slide.mask.device

    @property
    def has_bags(self) -> bool:
        """True if any patient has a slide."""
        return self.patches is not None and len(self.bags) > 0

    @property
    def present_genes(self) -> Tensor | None:
        """(present, G), the genes of the patients who have RNA; None if nobody has."""
        if self.genes is None or self.rna.count == 0:
            return None
        return self.rna.rows_of(self.genes)

    def tensors(self) -> list[Tensor]:
        """Patches, genes, covariates and linear risks, if there are any."""
        every = (self.patches, self.genes, self.covariates, self.linear)
        return [tensor for tensor in every if tensor is not None]

    def lengths(self) -> list[int]:
        """Patches of each patient; 0 without a slide."""
        lengths = iter(self.bags.lengths if self.has_bags else ())
        return [next(lengths) if has else 0 for has in self.slide.flags]

    def split(self, lengths: Sequence[int]) -> Iterator[PatientInputs]:
        """Neighbours, so many at a time; the lengths sum to B."""
        if len(lengths) == 1:
            yield self
            return
        presence = zip(self.slide.split(lengths), self.rna.split(lengths), strict=True)
        patient = bag = 0
        for slide, rna in presence:
            patches = bags = genes = covariates = linear = None
            if self.patches is not None:
                first, bag = bag, bag + slide.count
                start, stop = self.bags.bounds[first], self.bags.bounds[bag]
                patches = aligned(self.patches[start:stop])
                bags = Bags.of_lengths(self.bags.lengths[first:bag], patches.device)
            if self.genes is not None:
                genes = aligned(self.genes[patient : patient + len(slide)])
            if self.covariates is not None:
                covariates = aligned(self.covariates[patient : patient + len(slide)])
            if self.linear is not None:
                linear = aligned(self.linear[patient : patient + len(slide)])
            patient += len(slide)
            yield PatientInputs(patches, bags, genes, slide, rna, covariates, linear)

    def to(self, device: torch.device) -> PatientInputs:
        return on_device(self, device)


def on_device(value: object, device: torch.device) -> object:
    """A copy of a dataclass; patches become float32 only on the device, to copy fewer bytes."""
    moved = map_tensors(value, lambda tensor: tensor.to(device, non_blocking=True))
    patches = getattr(moved, "patches", None)
    return moved if patches is None else replace(moved, patches=patches.float())


def map_tensors(value: object, function: Callable[[Tensor], Tensor]) -> object:
    """A copy of a dataclass with the function applied to all tensors in it, at any depth."""
    changed = {}
    for field in fields(value):
        part = getattr(value, field.name)
        if isinstance(part, Tensor):
            changed[field.name] = function(part)
        elif isinstance(part, (Bags, Masked, Presence, PatientInputs)):
            changed[field.name] = map_tensors(part, function)
    return replace(value, **changed)


def _presence(
    flags: Sequence[bool] | Tensor | None, count: int, default: bool, device: torch.device
) -> Presence:
    if flags is None:
        flags = [default] * count
    elif isinstance(flags, Tensor):
        flags = flags.tolist()
    if len(flags) != count:
        raise ValueError(f"found {len(flags)} flags for {count} patients; expected one for each")
    return Presence.of(flags, device)
