"""Reconstruction loss of masked patches: decoder, L1 and their gradients, chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gimp_fast.ops.masked_l1 import DTYPES, REDUCTIONS, masked_l1_loss
from gimp_fast.ops.masked_reconstruction_rows import row_distances
from gimp_fast.ops.masks import Masked, split_masked, true_rows
from gimp_fast.ops.products import chunks, linear, weight_grad
from gimp_fast.ops.registration import is_transformed, operator, product_dtype

# Rows that are decoded at a time.
CHUNK_CPU = 4096
CHUNK_GPU = 16384


def masked_reconstruction_loss(
    tokens: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    mask: Tensor | Masked,
    *,
    reduction: str = "mean",
    chunk_rows: int | None = None,
) -> Tensor:
    """L1 distance of the masked patches from z Wᵀ + b, their reconstruction (GiMP eq. 3).

        sum  = Σ over masked rows n and channels c of |(z_n Wᵀ + b)_c − target_nc|
        mean = sum / (masked rows · C)

    It equals decoding every row and ``masked_l1_loss``, but decodes only the masked rows,
    ``chunk_rows`` at a time. The gradient of an L1 distance is a sign, which is known with the
    distance. So the gradients of z, W and b are computed together with the loss, and only they are
    kept for the backward pass. Sums have a fixed order and are in fp32 or wider. Rows that are not
    masked are not read and may hold anything; their gradient is 0. Without masked rows the loss and
    all gradients are 0.

    Differentiable once. Under autocast the products have its dtype; distances, and sums of the
    weight's gradient over chunks, are fp32. ``torch.compile`` sees one operator.

    Args:
        tokens: (..., N, d), float32, float64, bfloat16 or float16; or (R, d), only the masked
            rows, in order.
        weight: (C, d), of the dtype of tokens; under autocast of any.
        bias: (C,), or None.
        target: (..., N, C) of any of these dtypes; it gets no gradient.
        mask: (..., N) bool, True = masked = counted. A GPU is asked how many there are, and waited
            for, unless they are :class:`Masked`; a compiled function asks in any case.
        reduction: ``"mean"`` or ``"sum"``; ``"sum"`` is eq. 3.
        chunk_rows: number of rows that are decoded at a time; by default 4096 on a CPU, whose cache
            should hold them, and 16384 on a GPU, which needs few launches.

    Returns:
        Scalar, float32 (float64 for float64 products).

    Raises:
        ValueError: shapes, dtypes, devices or reduction do not fit, or the target requires a
            gradient; the message has the values.
    """
    dtype = product_dtype(tokens)
    if chunk_rows is None:
        chunk_rows = CHUNK_CPU if tokens.device.type == "cpu" else CHUNK_GPU
    mask, counts = split_masked(mask)
    count = None if counts is None else sum(counts)
    _validate(tokens, weight, bias, target, mask, reduction, chunk_rows, dtype)
    compiling = torch.compiler.is_compiling()
    if not compiling and is_transformed(tokens):
        decoded = torch.nn.functional.linear(tokens, weight, bias)
        return masked_l1_loss(
            decoded, target.to(decoded.dtype), mask, reduction=reduction, backend="torch"
        )
    needs_grad = [
        torch.is_grad_enabled() and x is not None and x.requires_grad
        for x in (tokens, weight, bias)
    ]
    inputs = (tokens, weight, bias, target, mask, chunk_rows, dtype, needs_grad)
    total = masked_reconstruction_fwd(*inputs)[0] if compiling else _Loss.apply(*inputs, count)
    if reduction == "sum":
        return total
    return total / (mask.sum() * weight.shape[0]).clamp(min=1)


def _validate(
    tokens: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    mask: Tensor,
    reduction: str,
    chunk_rows: int,
    dtype: torch.dtype,
) -> None:
    name = "masked_reconstruction_loss"
    if reduction not in REDUCTIONS:
        raise ValueError(f"{name}: reduction is {reduction!r}; expected one of {REDUCTIONS}")
    if chunk_rows < 1:
        raise ValueError(f"{name}: chunk_rows is {chunk_rows}; expected at least 1")
    if tokens.dim() < 2 or weight.dim() != 2 or weight.shape[1] != tokens.shape[-1]:
        raise ValueError(
            f"{name}: expected tokens (..., N, d) and weight (C, d), "
            f"got {tuple(tokens.shape)} and {tuple(weight.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(
            f"{name}: bias is {tuple(bias.shape)}; expected {tuple(weight.shape[:1])} like weight"
        )
    if mask.dtype != torch.bool:
        raise ValueError(f"{name}: mask is {mask.dtype}; expected torch.bool, True = counted")
    if target.shape != (*mask.shape, weight.shape[0]):
        raise ValueError(
            f"{name}: target is {tuple(target.shape)}; expected mask and channels, "
            f"{(*mask.shape, weight.shape[0])}"
        )
    # The number of masked rows is not known yet, so (R, d) is checked later.
    if tokens.shape[:-1] != mask.shape and tokens.dim() != 2:
        raise ValueError(
            f"{name}: tokens is {tuple(tokens.shape)}; expected {(*mask.shape, weight.shape[1])}, "
            "or two dimensions with only the masked rows"
        )
    if target.requires_grad:
        raise ValueError(f"{name}: target requires a gradient; this loss has none for it")
    if dtype not in DTYPES or target.dtype not in DTYPES:
        raise ValueError(
            f"{name}: tokens is {tokens.dtype} and target {target.dtype}; expected {DTYPES}"
        )
    cast = torch.is_autocast_enabled(tokens.device.type)
    for what, x in (("weight", weight), ("bias", bias), ("target", target), ("mask", mask)):
        if x is None:
            continue
        if x.device != tokens.device:
            raise ValueError(f"{name}: {what} is on {x.device}; expected {tokens.device}")
        if what in ("weight", "bias") and x.dtype != tokens.dtype and not cast:
            raise ValueError(f"{name}: {what} is {x.dtype}; expected {tokens.dtype} like tokens")


def _decode(
    tokens: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    mask: Tensor,
    chunk_rows: int,
    dtype: torch.dtype,
    needs_grad: list[bool],
    num_masked: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, bool]:
    """The sum, its gradients, indices of the masked rows, and whether tokens holds only these rows.

    The gradients are those of tokens (R, d), and of weight (C, d) and bias (C,) in fp32 or wider.
    They are empty where ``needs_grad`` is False.
    """
    rows = true_rows(mask.flatten(), num_masked)
    masked_only = tokens.shape[:-1] != mask.shape
    if masked_only and len(tokens) != len(rows):
        raise ValueError(
            f"masked_reconstruction_loss: tokens has {len(tokens)} rows; expected "
            f"{tuple(mask.shape)}, or the {len(rows)} masked ones"
        )
    wide = torch.promote_types(dtype, torch.float32)
    tokens, target = tokens.flatten(0, -2), target.flatten(0, -2)
    w, b = weight.to(dtype), None if bias is None else bias.to(dtype)
    sums = target.new_zeros(len(rows), dtype=wide)
    grad_tokens, grad_weight, grad_bias = (
        tokens.new_zeros(shape if wants else (0,), dtype=kind)
        for shape, kind, wants in zip(
            ((len(rows), w.shape[1]), w.shape, w.shape[:1]),
            (tokens.dtype, wide, wide),
            needs_grad,
            strict=True,
        )
    )
    for chunk in chunks(len(rows), chunk_rows):
        z = (tokens[chunk] if masked_only else tokens.index_select(0, rows[chunk])).to(dtype)
        sums[chunk], signs, sign_sums = row_distances(
            linear(z, w, b), target, rows[chunk], any(needs_grad), needs_grad[2]
        )
        if needs_grad[0]:
            grad_tokens[chunk] = linear(signs, w.t())
        if needs_grad[1]:
            grad_weight += weight_grad(signs, z)
        if needs_grad[2]:
            grad_bias += sign_sums
    return sums.sum(), grad_tokens, grad_weight, grad_bias, rows, masked_only


@operator
def masked_reconstruction_fwd(
    tokens: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    mask: Tensor,
    chunk_rows: int,
    dtype: torch.dtype,
    needs_grad: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The sum and its gradients, as a registered operator; the first has the shape of tokens."""
    with torch.no_grad(), torch.autocast(tokens.device.type, enabled=False):
        total, *grads, rows, masked_only = _decode(
            tokens, weight, bias, target, mask, chunk_rows, dtype, needs_grad
        )
    if needs_grad[0] and not masked_only:
        grads[0] = _scatter(grads[0], rows, tokens.shape)
    return total, *grads


def _scatter(grad: Tensor, rows: Tensor, shape: torch.Size) -> Tensor:
    """A tensor of this shape with the gradient in these rows, and zeros elsewhere."""
    full = grad.new_zeros(shape)
    full.flatten(0, -2).index_copy_(0, rows, grad)
    return full


@torch.library.register_fake(masked_reconstruction_fwd)
def _(tokens, weight, bias, target, mask, chunk_rows, dtype, needs_grad):
    wide = torch.promote_types(dtype, torch.float32)
    return (
        tokens.new_empty((), dtype=wide),
        tokens.new_empty(tokens.shape if needs_grad[0] else (0,)),
        weight.new_empty(weight.shape if needs_grad[1] else (0,), dtype=wide),
        weight.new_empty(weight.shape[:1] if needs_grad[2] else (0,), dtype=wide),
    )


def _setup_context(ctx, inputs, output):
    _, *grads = output
    ctx.mark_non_differentiable(*grads)
    ctx.set_materialize_grads(False)
    ctx.dtypes, ctx.needs_grad = _dtypes(*inputs[:3]), inputs[7]
    ctx.save_for_backward(*grads)


def _backward(ctx, grad, *_):
    if grad is None:
        return (None,) * 8
    return (*_scaled(ctx, grad, ctx.saved_tensors), *[None] * 5)


def _dtypes(*tensors: Tensor | None) -> list[torch.dtype | None]:
    return [None if x is None else x.dtype for x in tensors]


def _scaled(ctx, grad: Tensor, saved: Sequence[Tensor]) -> list[Tensor | None]:
    """The saved gradients of tokens, weight and bias, times that of the loss, in their dtypes."""
    parts = zip(saved, ctx.dtypes, ctx.needs_grad, strict=True)
    return [(part * grad).to(dtype) if wants else None for part, dtype, wants in parts]


torch.library.register_autograd(masked_reconstruction_fwd, _backward, setup_context=_setup_context)


class _Loss(torch.autograd.Function):
    """The registered operator, but it keeps gradients for the masked rows only."""

    @staticmethod
    def forward(ctx, tokens, weight, bias, target, mask, chunk_rows, dtype, needs_grad, count):
        with torch.autocast(tokens.device.type, enabled=False):
            total, *grads, rows, masked_only = _decode(
                tokens, weight, bias, target, mask, chunk_rows, dtype, needs_grad, count
            )
        ctx.shape = None if masked_only else tokens.shape
        ctx.dtypes, ctx.needs_grad = _dtypes(tokens, weight, bias), needs_grad
        ctx.save_for_backward(rows, *grads)
        return total

    @staticmethod
    def backward(ctx, grad):
        if torch.is_grad_enabled():
            # A second derivative would need the tokens, which are not kept.
            raise NotImplementedError(
                "masked_reconstruction_loss is differentiable once; for higher derivatives, decode "
                "the tokens and call masked_l1_loss(..., backend='reference')"
            )
        rows, *grads = ctx.saved_tensors
        scaled = _scaled(ctx, grad, grads)
        if scaled[0] is not None and ctx.shape is not None:
            scaled[0] = _scatter(scaled[0], rows, ctx.shape)
        return (*scaled, *[None] * 6)
