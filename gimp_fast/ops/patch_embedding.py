"""Embedding of patches: projection, CLS tokens and mask tokens, written straight into place."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gimp_fast.ops import native_linear
from gimp_fast.ops.masks import true_rows
from gimp_fast.ops.packing import Bags
from gimp_fast.ops.products import chunks, linear, weight_grad
from gimp_fast.ops.registration import is_transformed, product_dtype

# So many embedded rows exist at a time before they are copied into the result.
CHUNK_CPU = 2000
CHUNK_GPU = 32768


def embed_patches(
    patches: Tensor,
    weight: Tensor,
    bias: Tensor,
    cls_token: Tensor,
    mask_token: Tensor,
    bags: Bags,
    masked: Tensor | None = None,
    num_masked: int | None = None,
) -> Tensor:
    """H⁰ = [CLS; H_p W + b] of each bag, with the mask token for masked patches (GiMP eq. 1).

    Masked patches are neither read nor multiplied. Only the inputs are kept for the backward pass.
    Sums over rows have a fixed order; the weight's gradient is summed over chunks in fp32 or wider.
    Differentiable once.

    Args:
        patches: (T, C) packed patches.
        weight: (d, C), of the dtype of patches; under autocast of any.
        bias: (d,).
        cls_token, mask_token: (d,).
        bags: the B bags, which cover the T patches.
        masked: (T,) bool, True = masked.
        num_masked: how many are True; without this number a GPU is asked, and waited for.

    Returns:
        (T + B, d), bag after bag, each with its CLS token first; under autocast in its dtype.
    """
    dtype = product_dtype(patches)
    longest = max(bags.lengths, default=0)
    if not native_linear.takes(patches, weight, bias, longest):
        longest = None
    plan = _plan(bags, masked, num_masked, patches, longest)
    return _Embed.apply(patches, weight, bias, cls_token, mask_token, plan, dtype)


def place_cls(bags: Bags) -> Tensor:
    """Rows (B,) of the CLS tokens in the result of :func:`embed_patches`."""
    return bags.with_cls.cu_seqlens[:-1].long()


def place_patches(rows: Tensor, bags: Bags) -> Tensor:
    """Rows (R,) of the result that hold these patches, after the CLS token of their bag."""
    return rows + torch.searchsorted(bags.cu_seqlens[1:].long(), rows, right=True) + 1


def take_rows(x: Tensor, rows: Tensor) -> Tensor:
    """``x[rows]`` of a matrix (R, C). No row may be taken twice: gradients are not summed."""
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


def take_rows_of_residual(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """``x[rows]`` and x, for a residual connection around an operator that computes these rows.

    In the backward pass, the gradient of ``x[rows]`` is added to that of x where it lies. So x
    must go to a single operator, whose gradient is a tensor of its own, as LayerNorm's is. No row
    may be taken twice.
    """
    if torch.compiler.is_compiling() or is_transformed(x):
        return x[rows], x
    return _TakeRowsOfResidual.apply(x, rows)


class _TakeRowsOfResidual(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, rows):
        ctx.save_for_backward(rows)
        return x.index_select(0, rows), x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_rows, grad):
        (rows,) = ctx.saved_tensors
        return grad.index_add_(0, rows, grad_rows), None


class _Plan(NamedTuple):
    """Which rows go where."""

    parts: list[tuple[slice | Tensor, slice | Tensor]]  # to multiply: rows of patches and result
    cls: Tensor  # (B,) rows of the CLS tokens
    masked: Tensor | None  # (T + B,) bool, True = mask token; None without masks
    count: int  # T + B
    longest: int | None  # rows of the longest bag if a part may have rows of several bags


def _plan(
    bags: Bags, masked: Tensor | None, num_masked: int | None, patches: Tensor, longest: int | None
) -> _Plan:
    on_cpu = patches.device.type == "cpu"
    length = CHUNK_CPU if on_cpu else CHUNK_GPU
    cls = place_cls(bags)
    count = len(patches) + len(bags)
    if masked is None and longest is not None and len(bags) > 1:
        places = place_patches(torch.arange(len(patches)), bags)
        parts = [(rows, places[rows]) for rows in chunks(len(patches), length)]
        return _Plan(parts, cls, None, count, longest)
    if masked is None:
        parts = []
        for bag, (start, stop) in enumerate(bags.spans):
            for chunk in chunks(stop - start, length):
                first, last = start + chunk.start, start + chunk.stop
                parts.append((slice(first, last), slice(first + bag + 1, last + bag + 1)))
        return _Plan(parts, cls, None, count, longest)
    rows = true_rows(~masked, None if num_masked is None else len(masked) - num_masked)  # (U,)
    places = place_patches(rows, bags)
    has_mask_token = masked.new_ones(count)
    has_mask_token.index_fill_(0, torch.cat([places, cls]), False)
    # Products but the native ones may round a row differently when they have more rows, so the CPU
    # multiplies one bag at a time. A GPU needs few launches.
    ends = [len(rows)]
    if on_cpu and longest is None:
        ends = torch.searchsorted(rows, bags.cu_seqlens[1:].long()).tolist()
    parts = [
        (rows[begin:end][chunk], places[begin:end][chunk])
        for begin, end in pairwise([0, *ends])
        for chunk in chunks(end - begin, length)
    ]
    return _Plan(parts, cls, has_mask_token, count, longest)


def _rows(x: Tensor, rows: slice | Tensor) -> Tensor:
    return x[rows] if isinstance(rows, slice) else x.index_select(0, rows)


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, patches, weight, bias, cls_token, mask_token, plan, dtype):
        ctx.plan, ctx.dtype = plan, dtype
        ctx.save_for_backward(patches, weight, cls_token, mask_token)
        if plan.masked is None:
            out = patches.new_empty(plan.count, len(weight), dtype=dtype)
        else:  # overwritten below where nothing is masked; no list of masked rows is needed
            out = mask_token.to(dtype).repeat(plan.count, 1)
        with torch.autocast(patches.device.type, enabled=False):
            w, b = weight.to(dtype), bias.to(dtype)
            for rows, places in plan.parts:
                embedded = linear(_rows(patches, rows).to(dtype), w, b, plan.longest)
                if isinstance(places, slice):
                    out[places] = embedded
                else:
                    out.index_copy_(0, places, embedded)
            out[plan.cls] = cls_token.to(dtype)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        patches, weight, cls_token, mask_token = ctx.saved_tensors
        plan, dtype = ctx.plan, ctx.dtype
        wants_patches, wants_weight, wants_bias, wants_cls, wants_mask = ctx.needs_input_grad[:5]
        wide = torch.promote_types(dtype, torch.float32)
        grad_patches = torch.zeros_like(patches) if wants_patches else None
        grad_weight = torch.zeros_like(weight, dtype=wide)
        grad_bias = weight.new_zeros(len(weight), dtype=wide)
        grad_cls = grad_mask = None
        with torch.autocast(patches.device.type, enabled=False):
            for rows, places in plan.parts:
                grads = _rows(grad, places)
                if wants_weight:
                    grad_weight += weight_grad(grads, _rows(patches, rows).to(dtype))
                if wants_bias:
                    grad_bias += grads.sum(0, dtype=wide)
                if wants_patches:
                    grad_patches[rows] = linear(
                        grads, weight.to(dtype).t(), longest=plan.longest
                    ).to(patches.dtype)
            if wants_cls:
                grad_cls = grad[plan.cls].sum(0, dtype=wide).to(cls_token.dtype)
            if wants_mask and plan.masked is not None:
                grad_mask = (plan.masked.to(dtype) @ grad).to(mask_token.dtype)
        return (
            grad_patches,
            grad_weight.to(weight.dtype) if wants_weight else None,
            grad_bias.to(weight.dtype) if wants_bias else None,
            grad_cls,
            grad_mask,
            None,
            None,
        )
