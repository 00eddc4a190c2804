"""Bags of different lengths, one after the other: their bounds, checked."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor


def validate_bounds(cu_seqlens: Tensor) -> None:
    """Raise ValueError for what is wrong without a look at the values, which may be on a GPU."""
    if cu_seqlens.dim() != 1 or cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            "cu_seqlens must be a 1-D int32 or int64 tensor, "
            f"got {cu_seqlens.dtype} {tuple(cu_seqlens.shape)}"
        )


def bag_bounds(cu_seqlens: Tensor, num_tokens: int) -> list[tuple[int, int]]:
    """First and last-plus-one token of every packed bag, checked.

    Args:
        cu_seqlens: (B + 1,) integer bounds.
        num_tokens: T, where the last bag has to end.

    Raises:
        ValueError: not a 1-D integer tensor from 0 to T that never falls.
    """
    validate_bounds(cu_seqlens)
    values = cu_seqlens.tolist()
    if not values or values[0] != 0 or values[-1] != num_tokens or values != sorted(values):
        raise ValueError(
            f"cu_seqlens must rise from 0 to the number of tokens {num_tokens}, got {values}"
        )
    return list(pairwise(values))
