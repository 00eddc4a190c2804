"""The middle of a Nyström layer, between its projections: attention plus a convolution over V."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gimp_fast.ops import nystrom_native, nystrom_torch
from gimp_fast.ops.nystrom_attention import choose_backend, nystrom_attention
from gimp_fast.ops.nystrom_operators import (
    MODULES,
    nystrom_attention_bwd,
    nystrom_attention_fwd,
)
from gimp_fast.ops.packing import Bags, as_bags, operands
from gimp_fast.ops.registration import is_transformed, run_operator
from gimp_fast.ops.token_conv import (
    conv_weight_grad,
    token_conv,
    token_conv_fwd,
    token_conv_weight_grad,
    write_token_conv,
)


def nystrom_layer(
    qkv: Tensor,
    conv_weight: Tensor | None = None,
    *,
    num_landmarks: int = 256,
    pinv_iterations: int = 6,
    cu_seqlens: Tensor | Bags | None = None,
    backend: str = "auto",
) -> Tensor:
    """Nyström(Q, K, V) + conv(V) of one projection, heads merged (GiMP eq. 2).

    It equals ``nystrom_attention`` followed by ``token_conv``. On the CPU, the gradients of Q, K
    and V are written straight into the gradient of the projection. This saves a copy of all three.
    The native backend computes the convolution in the same pass. On a GPU the convolution's
    gradient of V is added to the attention's as it is computed.

    Args:
        qkv: (B, N, 3, H, D), or packed (1, T, 3, H, D) with ``cu_seqlens``.
        conv_weight: (H, 1, K, 1), or None for attention alone.
        num_landmarks, pinv_iterations, cu_seqlens, backend: as in ``nystrom_attention``.

    Returns:
        (B, N, H·D).
    """
    q, k, v = _heads_first(qkv)
    chosen = choose_backend(backend, q)
    composed = torch.compiler.is_compiling() or is_transformed(qkv)
    if chosen == "triton" and not composed:
        packed = operands(cu_seqlens, qkv.shape[1])
        return _TritonLayer.apply(qkv, conv_weight, *packed, num_landmarks, pinv_iterations)
    if chosen in MODULES and qkv.device.type == "cpu" and not composed:
        spans = None if cu_seqlens is None else as_bags(cu_seqlens, qkv.shape[1]).spans
        layer = _NativeLayer if chosen == "native" else _Layer
        return layer.apply(qkv, conv_weight, spans, num_landmarks, pinv_iterations)
    out = nystrom_attention(
        q,
        k,
        v,
        num_landmarks=num_landmarks,
        pinv_iterations=pinv_iterations,
        cu_seqlens=cu_seqlens,
        backend=backend,
    )
    if conv_weight is not None:
        out = token_conv(v, conv_weight, add=out, cu_seqlens=cu_seqlens)
    return out.transpose(1, 2).flatten(2)


def _heads_first(qkv: Tensor) -> tuple[Tensor, ...]:
    """(B, N, 3, H, D) -> three views (B, H, N, D)."""
    return tuple(part.transpose(1, 2) for part in qkv.unbind(2))


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv, conv_weight, spans, num_landmarks, pinv_iterations):
        ctx.spans, ctx.settings = spans, (num_landmarks, pinv_iterations, qkv.shape[-1] ** -0.5)
        q, k, v = _heads_first(qkv)
        with torch.autocast("cpu", enabled=False):
            out, *saved = nystrom_torch.nystrom_fwd(q, k, v, spans, *ctx.settings)
            if conv_weight is not None:
                write_token_conv(out, v, conv_weight, spans, add=out)
        ctx.save_for_backward(qkv, conv_weight, *saved)
        return out.transpose(1, 2).flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        qkv, conv_weight, *saved = ctx.saved_tensors
        q, k, v = _heads_first(qkv)
        grad = grad.unflatten(2, qkv.shape[3:]).transpose(1, 2)  # (B, H, N, D)
        grad_qkv = torch.empty_like(qkv)
        grads = _heads_first(grad_qkv)
        grad_weight = None
        with torch.autocast("cpu", enabled=False):
            nystrom_torch.nystrom_bwd(grad, q, k, v, ctx.spans, *saved, *ctx.settings, grads=grads)
            if conv_weight is not None:
                grad_v = grads[2]
                write_token_conv(grad_v, grad, conv_weight.flip(2), ctx.spans, add=grad_v)
                grad_weight = conv_weight_grad(grad, v, ctx.spans, conv_weight.shape[2])
                grad_weight = grad_weight.to(conv_weight.dtype)
        return grad_qkv, grad_weight, None, None, None


class _NativeLayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv, conv_weight, spans, num_landmarks, pinv_iterations):
        ctx.spans, ctx.settings = spans, (num_landmarks, pinv_iterations, qkv.shape[-1] ** -0.5)
        out, *saved = nystrom_native.nystrom_fwd(
            *_heads_first(qkv), spans, *ctx.settings, conv_weight=conv_weight
        )
        ctx.save_for_backward(qkv, conv_weight, *saved)
        return out.transpose(1, 2).flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        qkv, conv_weight, *saved = ctx.saved_tensors
        grad = grad.unflatten(2, qkv.shape[3:]).transpose(1, 2)  # (B, H, N, D)
        grad_qkv = torch.empty_like(qkv)
        _, _, _, *grad_weight = nystrom_native.nystrom_bwd(
            grad,
            *_heads_first(qkv),
            ctx.spans,
            *saved,
            *ctx.settings,
            grads=_heads_first(grad_qkv),
            conv_weight=conv_weight,
        )
        grad_weight = grad_weight[0].to(conv_weight.dtype) if grad_weight else None
        return grad_qkv, grad_weight, None, None, None


class _TritonLayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv, conv_weight, cu_seqlens, bounds, num_landmarks, pinv_iterations):
        ctx.bounds = bounds
        ctx.settings = (num_landmarks, pinv_iterations, qkv.shape[-1] ** -0.5, "triton", bounds)
        q, k, v = _heads_first(qkv)
        out, *saved = run_operator(nystrom_attention_fwd, q, k, v, cu_seqlens, *ctx.settings)
        if conv_weight is not None:
            out = run_operator(token_conv_fwd, v, conv_weight, out, cu_seqlens, bounds, False)
        ctx.save_for_backward(qkv, conv_weight, cu_seqlens, *saved)
        return out.transpose(1, 2).flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        qkv, conv_weight, cu_seqlens, *saved = ctx.saved_tensors
        q, k, v = _heads_first(qkv)
        grad = grad.unflatten(2, qkv.shape[3:]).transpose(1, 2)  # (B, H, N, D)
        inputs = (grad, q, k, v, cu_seqlens)
        grad_q, grad_k, grad_v = run_operator(nystrom_attention_bwd, *inputs, *saved, *ctx.settings)
        grad_weight = None
        if conv_weight is not None:
            packed = (cu_seqlens, ctx.bounds)
            grad_v = run_operator(token_conv_fwd, grad, conv_weight, grad_v, *packed, True)
            kernel = conv_weight.shape[2]
            grad_weight = run_operator(
                token_conv_weight_grad, grad, v, cu_seqlens, kernel, ctx.bounds
            ).to(conv_weight.dtype)
        grad_qkv = torch.stack([x.transpose(1, 2) for x in (grad_q, grad_k, grad_v)], 2)
        return grad_qkv, grad_weight, None, None, None, None
