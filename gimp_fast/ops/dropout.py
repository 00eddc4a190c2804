"""Dropout by the C++ operator of the package, csrc/dropout.cpp, where torch's takes longer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gimp_fast import native
from gimp_fast.ops.registration import is_transformed

_LEVELS = 1 << 16


def dropout(x: Tensor, p: float) -> Tensor:
    """x with each element dropped with probability p, and the others multiplied by 1 / (1 − p).

    In fp32 on a CPU, p is rounded to a multiple of 2⁻¹⁶, a seed is drawn from torch's generator,
    and nothing is saved for the backward pass. torch takes six times as long there, and saves a
    factor of each element. Elsewhere this is ``torch.nn.functional.dropout``.
    """
    dropped = round(p * _LEVELS)
    if 0 < dropped < _LEVELS and _is_native(x):
        return _Dropout.apply(x, dropped)
    return F.dropout(x, p)


def _is_native(x: Tensor) -> bool:
    return (
        x.dtype == torch.float32
        and x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not is_transformed(x)
        and native.load().cpu == native.AVAILABLE
    )


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, dropped):
        ctx.settings = (int(torch.empty((), dtype=torch.int64).random_()), dropped)
        return torch.ops.gimp_fast.dropout(x.contiguous(), *ctx.settings)

    @staticmethod
    def backward(ctx, grad):
        if torch.is_grad_enabled():  # a graph of the gradients is wanted
            return grad * torch.ops.gimp_fast.dropout(torch.ones_like(grad), *ctx.settings), None
        return torch.ops.gimp_fast.dropout(grad.contiguous(), *ctx.settings), None
