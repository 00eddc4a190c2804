"""Depthwise convolution of packed bags whose rows are laid out as squares."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from gimp_fast.ops.registration import is_transformed


def add_square_conv(
    rows: Tensor, weight: Tensor, bias: Tensor, spans: Sequence[tuple[int, int]]
) -> Tensor:
    """x + conv(x) + b of each square, and the rows of no square as they are.

    Differentiable once on a CPU.

    Args:
        rows: (T, d).
        weight: (d, 1, K, K) with K odd.
        bias: (d,).
        spans: (start, stop) of each square of s² rows, row by row, in order.

    Returns:
        (T, d).
    """
    plain = rows.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    if plain and not torch.compiler.is_compiling() and not is_transformed(rows):
        return _AddSquareConv.apply(rows, weight, bias, spans)
    parts, end = [], 0
    for start, stop in spans:
        square = rows[start:stop]
        parts += [rows[end:start], square + _convolved(square, weight, bias)]
        end = stop
    return torch.cat([*parts, rows[end:]])


class _AddSquareConv(torch.autograd.Function):
    """torch takes ten times as long for the gradient of a depthwise filter as for its result.

    That gradient is a depthwise convolution, too: of the square, with its gradient as the filter.
    """

    @staticmethod
    def forward(ctx, rows, weight, bias, spans):
        ctx.spans = spans
        ctx.save_for_backward(rows, weight)
        out = rows.clone()
        for start, stop in spans:
            out[start:stop] += _convolved(rows[start:stop], weight, bias)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        rows, weight = ctx.saved_tensors
        flipped = weight.flip(2, 3)
        grad_rows, grad_weight = grad.clone(), torch.zeros_like(weight)
        grad_bias = weight.new_zeros(len(weight))
        for start, stop in ctx.spans:
            square = grad[start:stop]
            grad_rows[start:stop] += _convolved(square, flipped)
            grad_weight += _convolved_by(rows[start:stop], square, weight.shape[-1])
            grad_bias += square.sum(0)
        return grad_rows, grad_weight, grad_bias, None


def _grid(square: Tensor) -> Tensor:
    """(s², d) -> (1, d, s, s); libraries are fast where channels lie together, as they do here."""
    side = math.isqrt(len(square))
    return square.reshape(1, side, side, -1).permute(0, 3, 1, 2)


def _convolved(square: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(s², d), (d, 1, K, K), (d,) -> (s², d)."""
    padding = weight.shape[-1] // 2
    grid = F.conv2d(_grid(square), weight, bias, padding=padding, groups=len(weight))
    return grid.permute(0, 2, 3, 1).reshape(square.shape)


def _convolved_by(square: Tensor, filters: Tensor, size: int) -> Tensor:
    """Σ_n square[n + t] · filters[n] for the K² shifts t: (s², d), (s², d) -> (d, 1, K, K)."""
    weight = _grid(filters).transpose(0, 1)  # (d, 1, s, s)
    grid = F.conv2d(_grid(square), weight, padding=size // 2, groups=len(weight))
    return grid.transpose(0, 1)
