"""Some rows of a tall matrix, a chunk at a time: what the operators over patches share."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gimp_fast.ops.linear import _weight_grad
from gimp_fast.ops.products import is_fast


def chunks(count: int, length: int) -> Iterator[slice]:
    """Slices of ``length`` rows that cover ``count`` of them."""
    return (slice(start, min(start + length, count)) for start in range(0, count, length))


def is_transformed(x: Tensor) -> bool:
    """True for a tensor inside a ``torch.func`` transform."""
    return torch._C._functorch.is_functorch_wrapped_tensor(x)


def product_dtype(x: Tensor) -> torch.dtype:
    """The type in which products of x are computed: autocast's, where that is on."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def weight_grad(grad: Tensor, x: Tensor) -> Tensor:
    """gradᵀ x of (R, O) and (R, C) of one dtype, in at least fp32; without a gradient of its own.

    Only products of half precision on a CPU are rounded to it first: torch has no other there.
    """
    if is_fast(x, x.numel() * grad.shape[1]):
        return _weight_grad(grad, x)
    if x.is_cuda and x.dtype in (torch.float16, torch.bfloat16):
        return torch.mm(grad.t(), x, out_dtype=torch.float32)
    found = grad.t() @ x
    return found.to(torch.promote_types(found.dtype, torch.float32))


def take_rows(x: Tensor, rows: Tensor) -> Tensor:
    """``x[rows]`` of a matrix (R, C), for rows that differ: its gradient need not be added up."""
    if torch.compiler.is_compiling() or is_transformed(x):
        return x[rows]
    return _TakeRows.apply(x, rows)


class _TakeRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, rows):
        ctx.save_for_backward(rows)
        ctx.count = len(x)
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx, grad):
        (rows,) = ctx.saved_tensors
        return grad.new_zeros(ctx.count, grad.shape[1]).index_copy_(0, rows, grad), None
