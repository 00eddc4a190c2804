"""What lies between the projections of a Nyström layer: attention, plus a convolution over V."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gimp_fast.ops import nystrom_torch
from gimp_fast.ops.nystrom_attention import choose_backend, nystrom_attention
from gimp_fast.ops.packing import Bags, as_bags
from gimp_fast.ops.rows import is_transformed
from gimp_fast.ops.token_conv import add_token_conv, conv_weight_grad, token_conv


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

    The same as ``nystrom_attention`` and ``token_conv`` in turn. On the CPU the gradients of Q, K
    and V are written beside each other, where the projection wants them, which spares the memory of
    all three and a pass over it.

    Args:
        qkv: (B, N, 3, H, D), or packed (1, T, 3, H, D) with ``cu_seqlens``.
        conv_weight: (H, 1, K, 1), or None for attention alone.
        num_landmarks, pinv_iterations, cu_seqlens, backend: as in ``nystrom_attention``.

    Returns:
        (B, N, H·D).
    """
    q, k, v = _heads_first(qkv)
    alone = choose_backend(backend, q) == "torch" and qkv.device.type == "cpu"
    if alone and not torch.compiler.is_compiling() and not is_transformed(qkv):
        spans = None if cu_seqlens is None else as_bags(cu_seqlens, qkv.shape[1]).spans
        return _Layer.apply(qkv, conv_weight, spans, num_landmarks, pinv_iterations)
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
                add_token_conv(out, v, conv_weight, spans)
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
                add_token_conv(grads[2], grad, conv_weight.flip(2), ctx.spans)
                found = conv_weight_grad(grad, v, ctx.spans, conv_weight.shape[2])
                grad_weight = found.to(conv_weight.dtype)
        return grad_qkv, grad_weight, None, None, None
