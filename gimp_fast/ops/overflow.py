"""Attention scores beyond the largest fp32: noticed in the output, and shrunk before the scores."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gimp_fast.ops.registration import compute_dtype, is_transformed

# Sums of D ≤ 4096 products of two numbers up to 2**56 are below the largest fp32, 2**128.
LARGEST_EXPONENT = 56


def can_be_read(x: Tensor) -> bool:
    """False on a GPU, where reading waits, and while a compiler or a transform has no values."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and not is_transformed(x)


def has_overflowed(out: Tensor) -> bool:
    """True if the output of a bag is not finite, where it can be read."""
    return can_be_read(out) and not math.isfinite(out.detach().sum(dtype=compute_dtype(out)))


def score_factors(q: Tensor, k: Tensor) -> Tensor:
    """Powers of two that shrink q and k of a bag until no score of them overflows.

    Of scores that large, softmax keeps only the largest, and the order of the shrunk scores is the
    same. The factors are 1 in fp64 and where no entry of the head is beyond 2⁵⁶.

    Args:
        q, k: (..., N, D).

    Returns:
        (..., 2), for q and for k; fp64 for fp64 inputs, else fp32.
    """
    largest = torch.stack([x.abs().amax((-2, -1)) for x in (q, k)], -1).to(compute_dtype(q))
    if largest.dtype == torch.float64:
        return torch.ones_like(largest)
    return torch.exp2((LARGEST_EXPONENT - largest.log2().ceil()).clamp(max=0))


def multiplied(q: Tensor, k: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """q and k, (..., N, D), times their factors (..., 2)."""
    factors = factors.to(q.dtype)[..., None, None]
    return q * factors[..., 0, :, :], k * factors[..., 1, :, :]
