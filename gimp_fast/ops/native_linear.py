"""Linear layers of few channels or rows by the C++ operators of the package: csrc/linear.cpp."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gimp_fast import native
from gimp_fast.ops.registration import is_transformed

# Elements of a weight, and rows: torch's libraries multiply more of both as fast or faster.
LARGEST = 1 << 17
LONGEST = 1024


def takes(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, longest: int | None = None
) -> bool:
    """True if the native operators compute this layer.

    Its results do not depend on the number of threads, and a row's do not on the other rows. So
    several bags may be computed together where each alone would be computed natively.

    Args:
        longest: rows of the longest bag in x; all rows of x are one bag by default.
    """
    rows = x.numel() // max(x.shape[-1], 1) if longest is None else longest
    return (
        (weight.numel() <= LARGEST or rows <= LONGEST)
        and weight.numel() > 0
        and x.dtype == weight.dtype == torch.float32
        and (bias is None or bias.dtype == torch.float32)
        and x.device.type == weight.device.type == "cpu"
        and x.shape[-1] == weight.shape[1]
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not is_transformed(x)
        and not is_transformed(weight)
        and native.load().cpu == native.AVAILABLE
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weightᵀ + bias for what :func:`takes` accepts: (..., C), (O, C), (O,) -> (..., O)."""
    return _Linear.apply(x, weight, bias)


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1]).contiguous()


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        out = torch.ops.gimp_fast.linear_fwd(_rows(x), weight.contiguous(), bias)
        return out.view(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = wants = ctx.needs_input_grad
        if torch.is_grad_enabled():  # a graph of the gradients is wanted
            grads = grad.reshape(-1, grad.shape[-1])
            return (
                F.linear(grad, weight.t()) if wants_x else None,
                grads.t() @ x.reshape(-1, x.shape[-1]) if wants_weight else None,
                grads.sum(0) if wants_bias else None,
            )
        results = torch.ops.gimp_fast.linear_bwd(_rows(grad), _rows(x), weight.contiguous(), *wants)
        grad_x, *others = (y if want else None for y, want in zip(results, wants, strict=True))
        return None if grad_x is None else grad_x.view(x.shape), *others
