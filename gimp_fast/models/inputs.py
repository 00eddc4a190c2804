"""What a model reads of a batch of patients, in one object that is made once and passed down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from gimp_fast.ops.packing import Bags, as_bags


@dataclass(frozen=True, eq=False)
class Presence:
    """Which of B patients have a modality, known to the CPU and to the device at once.

    Attributes:
        flags: one bool a patient.
        mask: (B,) bool on the device, True = present.
        index: (present,) int64 on the device: the patients who have it, in order.
    """

    flags: tuple[bool, ...]
    mask: Tensor
    index: Tensor

    @classmethod
    def of(cls, flags: Sequence[bool], device: torch.device | str = "cpu") -> Presence:
        flags = tuple(map(bool, flags))
        index = [place for place, has in enumerate(flags) if has]
        return cls(
            flags,
            torch.tensor(flags, dtype=torch.bool, device=device),
            torch.tensor(index, dtype=torch.int64, device=device),
        )

    def __len__(self) -> int:
        return len(self.flags)

    @property
    def count(self) -> int:
        """Patients who have it."""
        return sum(self.flags)

    @property
    def everybody(self) -> bool:
        return all(self.flags)

    def rows_of(self, values: Tensor) -> Tensor:
        """(B, …) -> (present, …)."""
        return values if self.everybody else values.index_select(0, self.index)

    def fill(self, rows: Tensor | None, token: Tensor) -> Tensor:
        """(present, d) -> (B, d), with the token in the rows of patients who lack the modality.

        Args:
            rows: of the patients who have it; None if nobody has.
            token: (d,) learned, for the others.
        """
        if rows is None:
            return token.expand(len(self), -1)
        return token.to(rows.dtype).expand(len(self), -1).index_copy(0, self.index, rows)


@dataclass(frozen=True, eq=False)
class PatientInputs:
    """B patients as a model reads them. A model that has no use for a modality leaves it unread.

    Attributes:
        patches: (T, C) packed patches of the patients who have any; None for no slides at all.
        bags: their bounds, one bag for each patient who has a slide; None without patches.
        genes: (B, G) scaled expression, where rows of patients without RNA are not read; None for
            no RNA at all.
        slide: who has a slide.
        rna: who has RNA.
    """

    patches: Tensor | None
    bags: Bags | None
    genes: Tensor | None
    slide: Presence
    rna: Presence

    @classmethod
    def of(
        cls,
        patches: Tensor | None = None,
        cu_seqlens: Tensor | Bags | None = None,
        genes: Tensor | None = None,
        *,
        has_slide: Sequence[bool] | Tensor | None = None,
        has_genes: Sequence[bool] | Tensor | None = None,
    ) -> PatientInputs:
        """From tensors on one device.

        Args:
            patches: (T, C) packed patches.
            cu_seqlens: (bags + 1,) their bounds; None for one bag.
            genes: (B, G) scaled expression.
            has_slide: (B,) bool, True = present; None for everybody if there are patches. The
                present ones are the bags, in order.
            has_genes: (B,) bool, True = present; None for everybody if there are genes.

        Raises:
            ValueError: no modality at all, bounds that do not fit, or not as many bags as patients
                with a slide.
        """
        given = next((x for x in (patches, genes) if x is not None), None)
        if given is None:
            raise ValueError("found neither patches nor genes; expected at least one of them")
        bags = None
        if patches is not None:
            bounds = torch.tensor([0, len(patches)]) if cu_seqlens is None else cu_seqlens
            bags = as_bags(bounds, len(patches)).to(patches.device)
        count = next(len(x) for x in (has_slide, has_genes, genes, bags) if x is not None)
        if genes is not None and len(genes) != count:
            raise ValueError(f"found genes of {len(genes)} patients; expected {count}")
        slide = _presence(has_slide, count, bags is not None and len(bags) > 0, given.device)
        rna = _presence(has_genes, count, genes is not None, given.device)
        if bags is not None and len(bags) != slide.count:
            raise ValueError(f"found {len(bags)} bags for {slide.count} patients with a slide")
        return cls(patches, bags, genes, slide, rna)

    @classmethod
    def packed(
        cls,
        bags: Sequence[Tensor | None] | None,
        genes: Tensor | None,
        has_genes: Sequence[bool],
        *,
        feature_dim: int,
    ) -> PatientInputs:
        """From a bag for each patient, on the CPU.

        Args:
            bags: B bags (N, C), None for a patient without slides; None if no slides are read.
            genes: (B, G) scaled expression, with any values for patients without RNA; None if no
                RNA is read.
            has_genes: (B,) bool, True = present.
            feature_dim: C.
        """
        rna = Presence.of(has_genes)
        if bags is None:
            return cls(None, None, genes, Presence.of([False] * len(rna)), rna)
        present = [bag for bag in bags if bag is not None]
        patches = present[0] if len(present) == 1 else torch.empty(0, feature_dim)
        if len(present) > 1:
            patches = torch.cat(present)
        slide = Presence.of([bag is not None for bag in bags])
        return cls(patches, Bags.of_lengths(map(len, present)), genes, slide, rna)

    def __len__(self) -> int:
        return len(self.slide)

    @property
    def device(self) -> torch.device:
        return self.slide.mask.device

    @property
    def has_bags(self) -> bool:
        """Whether any patient has a slide."""
        return self.patches is not None and len(self.bags) > 0

    @property
    def present_genes(self) -> Tensor | None:
        """(present, G) of the patients who have RNA; None if nobody has."""
        if self.genes is None or self.rna.count == 0:
            return None
        return self.rna.rows_of(self.genes)

    def to(self, device: torch.device) -> PatientInputs:
        """On a device; patches become float32 there, so that half as many bytes travel."""
        moved = map_tensors(self, lambda tensor: tensor.to(device, non_blocking=True))
        patches = moved.patches
        return moved if patches is None else replace(moved, patches=patches.float())


def map_tensors(value: object, function: Callable[[Tensor], Tensor]) -> object:
    """A copy of a dataclass with the function applied to every tensor in it, at any depth."""
    changed = {}
    for field in fields(value):
        part = getattr(value, field.name)
        if isinstance(part, Tensor):
            changed[field.name] = function(part)
        elif isinstance(part, (Bags, Presence, PatientInputs)):
            changed[field.name] = map_tensors(part, function)
    return replace(value, **changed)


def _presence(
    given: Sequence[bool] | Tensor | None, count: int, default: bool, device: torch.device
) -> Presence:
    flags = [default] * count if given is None else given
    if isinstance(flags, Tensor):
        flags = flags.tolist()
    if len(flags) != count:
        raise ValueError(f"found {len(flags)} flags of presence for {count} patients")
    return Presence.of(flags, device)
