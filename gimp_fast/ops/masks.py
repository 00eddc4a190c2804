"""Masked patches that are counted where the batch is made."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gimp_fast.ops import overflow


@dataclass(frozen=True, eq=False)
class Masked:
    """Which patches are masked, known on the device, and how many, known on the CPU.

    By the counts, masked patches are listed without a wait for the GPU.

    Attributes:
        mask: bool, of the shape of the patches without channels; True = masked.
        counts: masked patches of each bag.
    """

    mask: Tensor
    counts: tuple[int, ...]

    @classmethod
    def of(cls, mask: Tensor) -> Masked:
        """The masks (B, N) of a batch. They are read, which waits if they are on a GPU."""
        return cls(mask, tuple(mask.sum(1).tolist()))

    @property
    def total(self) -> int:
        return sum(self.counts)


def split_masked(masked: Tensor | Masked | None) -> tuple[Tensor | None, tuple[int, ...] | None]:
    """The mask, and its counts if they are known.

    A compiler gets no counts: it would compile once for each set of them.

    Raises:
        ValueError: the counts are not those of the mask; on a GPU it is not read.
    """
    if not isinstance(masked, Masked):
        return masked, None
    found = int(masked.mask.sum()) if overflow.can_be_read(masked.mask) else masked.total
    if found != masked.total:
        raise ValueError(
            f"masked has {found} masked patches; its counts are {masked.counts}, {masked.total} in "
            "all"
        )
    return masked.mask, None if torch.compiler.is_compiling() else masked.counts


def true_rows(mask: Tensor, count: int | None) -> Tensor:
    """Places (count,) where a mask (T,) is True; a ``count`` of None waits for a GPU to count."""
    if count is None:
        return mask.nonzero()[:, 0]
    return torch.nonzero_static(mask, size=count)[:, 0]
