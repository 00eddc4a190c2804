"""Embedding of patches: projection, CLS tokens and mask tokens, written once, where they stay."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gimp_fast.ops.linear import linear
from gimp_fast.ops.rows import chunks, product_dtype, weight_grad

# Rows whose products exist apart from the result.
CHUNK_CPU = 2000
CHUNK_GPU = 32768


def embed_patches(
    patches: Tensor,
    weight: Tensor,
    bias: Tensor,
    cls_token: Tensor,
    mask_token: Tensor,
    bounds: list[tuple[int, int]],
    masked: Tensor | None = None,
) -> Tensor:
    """H⁰ = [CLS; H_p W + b] of each bag, with the mask token for masked patches (GiMP eq. 1).

    Masked patches are neither read nor multiplied. Nothing is kept for the backward pass but the
    inputs. Sums over the rows are taken in a fixed order, those of the weight's gradient over
    chunks in at least fp32. Differentiable once.

    Args:
        patches: (T, C) packed patches.
        weight: (d, C), the dtype of patches, or under autocast any.
        bias: (d,).
        cls_token, mask_token: (d,).
        bounds: first and last-plus-one patch of each bag, B of them, which cover the T patches.
        masked: (T,) bool, True = masked.

    Returns:
        (T + B, d), bag after bag, its CLS token first; under autocast in its type.
    """
    dtype = product_dtype(patches)
    plan = _plan(bounds, masked, patches)
    return _Embed.apply(patches, weight, bias, cls_token, mask_token, plan, dtype)


def place_cls(bounds: list[tuple[int, int]], device: torch.device) -> Tensor:
    """Rows (B,) of the CLS tokens in the result of :func:`embed_patches`."""
    starts = [start + bag for bag, (start, _) in enumerate(bounds)]
    steps = {b - a for a, b in pairwise(starts)} or {1}
    if starts and len(steps) == 1:
        # Made on the device: nothing is copied to it, which would end the capture of a CUDA graph.
        return torch.arange(starts[0], starts[-1] + 1, steps.pop(), device=device)
    return torch.tensor(starts, dtype=torch.int64, device=device)


def place_patches(rows: Tensor, bounds: list[tuple[int, int]]) -> Tensor:
    """Rows of the result that hold these patches (R,); each bag's CLS token stands before them."""
    stops = torch.tensor([stop for _, stop in bounds], dtype=torch.int64, device=rows.device)
    return rows + torch.searchsorted(stops, rows, right=True) + 1


class _Plan(NamedTuple):
    """Which rows go where.

    Attributes:
        parts: (rows of the patches, rows of the result) to multiply, alike for each part.
        cls: (B,) rows of the CLS tokens.
        masked: (T + B,) bool, True = mask token; None where there is none.
        count: T + B.
    """

    parts: list[tuple[slice | Tensor, slice | Tensor]]
    cls: Tensor
    masked: Tensor | None
    count: int


def _plan(bounds: list[tuple[int, int]], masked: Tensor | None, patches: Tensor) -> _Plan:
    length = CHUNK_GPU if patches.is_cuda else CHUNK_CPU
    cls = place_cls(bounds, patches.device)
    count = len(patches) + len(bounds)
    if masked is None:
        parts = []
        for bag, (start, stop) in enumerate(bounds):
            for some in chunks(stop - start, length):
                first, last = start + some.start, start + some.stop
                parts.append((slice(first, last), slice(first + bag + 1, last + bag + 1)))
        return _Plan(parts, cls, None, count)
    rows = (~masked).nonzero()[:, 0]  # (U,)
    places = place_patches(rows, bounds)
    among = masked.new_ones(count)
    among[places] = False
    among[cls] = False
    # A bag at a time, as a matrix product may round a row by how many others it computes; but a GPU
    # wants few launches.
    ends = [len(rows)]
    if not patches.is_cuda:
        ends = torch.searchsorted(rows, torch.tensor([stop for _, stop in bounds])).tolist()
    parts = [
        (rows[begin:end][some], places[begin:end][some])
        for begin, end in pairwise([0, *ends])
        for some in chunks(end - begin, length)
    ]
    return _Plan(parts, cls, among, count)


def _rows(x: Tensor, rows: slice | Tensor) -> Tensor:
    return x[rows] if isinstance(rows, slice) else x.index_select(0, rows)


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, patches, weight, bias, cls_token, mask_token, plan, dtype):
        ctx.plan, ctx.dtype = plan, dtype
        ctx.save_for_backward(patches, weight, cls_token, mask_token)
        out = patches.new_empty(plan.count, len(weight), dtype=dtype)
        with torch.autocast(patches.device.type, enabled=False):
            w, b = weight.to(dtype), bias.to(dtype)
            for rows, places in plan.parts:
                found = linear(_rows(patches, rows).to(dtype), w, b)
                if isinstance(places, slice):
                    out[places] = found
                else:
                    out.index_copy_(0, places, found)
            if plan.masked is not None:
                out[plan.masked] = mask_token.to(dtype)
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
                some = _rows(grad, places)
                if wants_weight:
                    grad_weight += weight_grad(some, _rows(patches, rows).to(dtype))
                if wants_bias:
                    grad_bias += some.sum(0, dtype=wide)
                if wants_patches:
                    grad_patches[rows] = linear(some, weight.to(dtype).t()).to(patches.dtype)
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
