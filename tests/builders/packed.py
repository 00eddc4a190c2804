"""Random bags, packed one after the other."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def cu_seqlens_of(lengths: Iterable[int]) -> Tensor:
    """(B + 1,) int32 bounds of bags of these lengths."""
    return torch.tensor([0, *lengths]).cumsum(0).int()


def random_rows(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal numbers that depend on shape and seed only."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def packed_bags(lengths: tuple[int, ...], channels: int) -> tuple[Tensor, Tensor]:
    """Patches (T, C) in fp64, and the bounds of their bags."""
    return random_rows(sum(lengths), channels), cu_seqlens_of(lengths)
