"""A whole Nyström layer by one C++ operator of the package: csrc/nystrom_layer.cpp.

Of a layer of few channels, or of a short bag, separate calls take longer than their work.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gimp_fast.ops.packing import Bags


def layer(
    x: Tensor,
    weight_in: Tensor,
    weight_out: Tensor,
    bias: Tensor | None,
    conv_weight: Tensor | None,
    bags: Bags | None,
    heads: int,
    num_landmarks: int,
    pinv_iterations: int,
) -> Tensor:
    """W_out [Nyström(Q, K, V) + conv(V)] + bias, with Q, K, V = x W_in (GiMP eq. 1 and 2).

    It is bitwise the same as its parts: ``native_linear.linear`` and the native ``nystrom_layer``.

    Args:
        x: (B, N, C), or packed (1, T, C) with ``bags``; ``native_linear.takes`` it for both
            weights.
        weight_in: (3 H D, C).
        weight_out: (O, H D).
        bias: (O,).
        conv_weight: (H, 1, K, 1).
        heads: H.
        num_landmarks, pinv_iterations: as in :func:`gimp_fast.ops.nystrom_attention`.

    Returns:
        (B, N, O).
    """
    bounds = [] if bags is None else list(bags.bounds)
    settings = (bounds, heads, num_landmarks, pinv_iterations)
    if torch.is_grad_enabled():
        return _Layer.apply(x, weight_in, weight_out, bias, conv_weight, settings)
    return _forward(x, weight_in, weight_out, bias, conv_weight, settings, False)[0]


def _forward(x, weight_in, weight_out, bias, conv_weight, settings, keeps):
    return torch.ops.gimp_fast.nystrom_layer_fwd(
        x.contiguous(),
        weight_in.contiguous(),
        weight_out.contiguous(),
        bias,
        None if conv_weight is None else conv_weight.contiguous(),
        *settings,
        keeps,
    )


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight_in, weight_out, bias, conv_weight, settings):
        out, *saved = _forward(x, weight_in, weight_out, bias, conv_weight, settings, True)
        ctx.settings = settings
        ctx.save_for_backward(x, *saved, weight_in, weight_out, conv_weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        wants = ctx.needs_input_grad[:5]
        x, qkv, attended, marks, *weights = ctx.saved_tensors
        grads = torch.ops.gimp_fast.nystrom_layer_bwd(
            grad.contiguous(),
            x.contiguous(),
            qkv,
            attended,
            marks,
            *(None if weight is None else weight.contiguous() for weight in weights),
            *ctx.settings,
            wants,
        )
        return *(y if want else None for y, want in zip(grads, wants, strict=True)), None
