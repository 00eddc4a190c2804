"""Batched matrix products, by whichever of torch's two CPU libraries is the faster.

torch gives fp32 products to MKL, which runs at half speed on processors that are not Intel's; its
other library, oneDNN, compiles its own AVX-512 code for any. oneDNN takes one matrix at a time, and
only pays for products that are not tiny.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

# Multiply-adds of a product below which oneDNN's preparations take longer than MKL's work.
SMALLEST = 1 << 20
# oneDNN adds up a dot product in one run, MKL in shorter ones: rounding errors grow with the run.
LONGEST_RUN = 128


@cache
def _has_fast_products() -> bool:
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def is_fast(x: Tensor, multiply_adds: int) -> bool:
    """Whether single products of this size and of tensors like x go to oneDNN."""
    return (
        multiply_adds >= SMALLEST
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and _has_fast_products()
    )


def product(x: Tensor, w: Tensor, add: Tensor | None = None) -> Tensor:
    """x wᵀ, or add + x wᵀ.

    Args:
        x: (G, m, k).
        w: (G, n, k), any strides.
        add: (G, m, n) or (G, 1, n).

    Returns:
        (G, m, n), new.
    """
    groups, m, k = x.shape
    if groups == 1 and is_fast(x, m * k * w.shape[1]):
        w = w[0]
        if add is None:
            return torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")
        if add.shape[1] != m:
            return torch.ops.mkldnn._linear_pointwise(x, w, add[0, 0], "none", [], "")
        return torch.ops.mkldnn._linear_pointwise(x, add, w, None, "add")
    if add is None:
        return torch.bmm(x, w.mT)
    return torch.baddbmm(add, x, w.mT)


def precise_product(x: Tensor, w: Tensor, add: Tensor | None = None) -> Tensor:
    """:func:`product` in runs so short that its rounding errors are as small as MKL's."""
    groups, m, k = x.shape
    if k <= LONGEST_RUN or groups > 1 or not is_fast(x, m * k * w.shape[1]):
        return product(x, w, add)
    for start in range(0, k, LONGEST_RUN):
        run = slice(start, start + LONGEST_RUN)
        # A part of the columns of w is what oneDNN has no fast code for.
        part = w[..., run] if w.stride(-1) != 1 else w[..., run].contiguous()
        add = product(x[..., run], part, add)
    return add
