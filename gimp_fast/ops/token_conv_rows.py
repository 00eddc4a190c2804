"""The depthwise convolution along the tokens of a bag, for some of its tokens only."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from gimp_fast.ops import token_conv_triton
from gimp_fast.ops.packing import Bags, Rows, operands, spans_of
from gimp_fast.ops.products import chunks
from gimp_fast.ops.registration import compute_dtype, differentiable, operator, token_major
from gimp_fast.ops.token_conv import banded, block_length, blocks, diagonals, validate_conv


def token_conv_rows(
    v: Tensor, weight: Tensor, rows: Rows, *, bags: Bags, add: Tensor | None = None
) -> Tensor:
    """The rows of :func:`token_conv` that are needed, and nothing else. Differentiable once.

    Output and gradient of a bag are bitwise the same alone or packed. Sums are in fp32 or wider.

    Args:
        v: (1, H, T, D), packed bags of any floating dtype, any strides.
        weight: (H, 1, K, 1) with K odd, of any floating dtype.
        rows: the R needed rows, which must be tokens of ``bags``; this is not checked.
        bags: bounds of the bags in v.
        add: (1, H, R, D) in the dtype of v, to which the convolution is added.

    Returns:
        (1, H, R, D) in the dtype of v; memory holds the heads of a token together.

    Raises:
        ValueError: shapes or dtypes do not fit.
    """
    validate_conv(v, weight, None, bags)
    wanted = (1, v.shape[1], rows.bags.num_rows, v.shape[3])
    if add is not None and (add.shape != wanted or add.dtype != v.dtype):
        raise ValueError(
            f"token_conv_rows: add must be {v.dtype} {wanted}, got {add.dtype} {tuple(add.shape)}"
        )
    return _conv_rows(v, weight, add, rows.index, *operands(bags, v.shape[2]))


@operator
def token_conv_rows_fwd(
    v: Tensor,
    weight: Tensor,
    add: Tensor | None,
    index: Tensor,
    cu_seqlens: Tensor,
    bounds: list[int] | None = None,
) -> Tensor:
    """:func:`token_conv_rows`, as a registered operator."""
    if token_conv_triton.takes(v):
        return token_conv_triton.token_conv_rows_fwd(v, weight, add, index, cu_seqlens, bounds)
    out = v.new_empty(1, len(index), v.shape[1], v.shape[3]).transpose(1, 2)
    with torch.autocast(v.device.type, enabled=False):
        write_token_conv_rows(out, v, weight, index, (cu_seqlens, bounds), add)
    return out


@operator
def token_conv_rows_bwd(
    grad: Tensor,
    v: Tensor,
    weight: Tensor,
    index: Tensor,
    cu_seqlens: Tensor,
    bounds: list[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradients of v and of the weight, the latter in fp32 or wider."""
    if token_conv_triton.takes(v):
        return token_conv_triton.token_conv_rows_bwd(grad, v, weight, index, cu_seqlens, bounds)
    grad_v = token_major(v).zero_()
    with torch.autocast(v.device.type, enabled=False):
        packed = (cu_seqlens, bounds)
        return grad_v, add_token_conv_rows_grad(grad_v, grad, v, weight, index, packed)


def write_token_conv_rows(
    out: Tensor,
    v: Tensor,
    weight: Tensor,
    index: Tensor,
    packed: tuple[Tensor, list[int] | None],
    add: Tensor | None,
) -> None:
    """Write the convolution, plus ``add``, which may be ``out``; without a gradient.

    Args:
        packed: bounds of the bags in v, as a tensor and as numbers or None.
    """
    if v.device.type != "cpu":
        _write_by_taps(out, v, weight, index, packed[0], add)
        return
    band = banded(weight.to(compute_dtype(v)), block_length(v))  # (H, L, L + K - 1)
    for tokens, rows, places in _bags(v, index, packed):
        values, results = v[0, :, tokens], out[0, :, rows]
        addend = None if add is None else add[0, :, rows]
        for taken, window, filters in _output_blocks(places, values.shape[1], band):
            convolved = torch.bmm(filters, values[:, window].to(band.dtype))  # (H, r, D)
            if addend is None:
                results[:, taken] = convolved
            else:
                results[:, taken] = addend[:, taken] + convolved


def add_token_conv_rows_grad(
    grad_v: Tensor,
    grad: Tensor,
    v: Tensor,
    weight: Tensor,
    index: Tensor,
    packed: tuple[Tensor, list[int] | None],
) -> Tensor:
    """Add to the gradient of v; return that of the weight, (H, 1, K, 1) in fp32 or wider."""
    if v.device.type != "cpu":
        return _add_grad_by_taps(grad_v, grad, v, weight, index, packed[0])
    kernel, block = weight.shape[2], block_length(v)
    wide = compute_dtype(v)
    band = banded(weight.flip(2).to(wide), block)
    grad_band = torch.zeros_like(band)
    for tokens, rows, places in _bags(v, index, packed):
        grads, values, grad_values = grad[0, :, rows], v[0, :, tokens], grad_v[0, :, tokens]
        n = values.shape[1]
        for taken, targets, filters in _input_blocks(places, n, band):
            grad_values[:, targets] += torch.bmm(filters, grads[:, taken].to(wide))
        for taken, window, local, columns in _needed_blocks(places, n, band):
            products = torch.bmm(grads[:, taken].to(wide), values[:, window].to(wide).mT)
            grad_band[:, :, columns].index_add_(1, local, products)
    return diagonals(grad_band, kernel).sum(1)[:, None, :, None]


def _bags(
    v: Tensor, index: Tensor, packed: tuple[Tensor, list[int] | None]
) -> Iterator[tuple[slice, slice, Tensor]]:
    """For each bag with rows: its tokens, its rows, and their places in the bag."""
    spans = spans_of(*packed, v.shape[2])
    ends = torch.searchsorted(index, torch.tensor([0, *(stop for _, stop in spans)])).tolist()
    for (start, stop), (first, last) in zip(spans, pairwise(ends), strict=True):
        if last > first:
            yield slice(start, stop), slice(first, last), index[first:last] - start


def _needed_blocks(
    places: Tensor, n: int, band: Tensor
) -> Iterator[tuple[slice, slice, Tensor, slice]]:
    """For each block of tokens with needed rows: these, the tokens that they read, their places in
    the block, and the columns of the banded matrix.
    """
    edges = torch.arange(0, n + band.shape[1], band.shape[1])
    ends = torch.searchsorted(places, edges).tolist()
    for (rows, window, part), (first, last) in zip(blocks(n, band), pairwise(ends), strict=True):
        if last > first:
            yield slice(first, last), window, places[first:last] - rows.start, part[2]


def _output_blocks(places: Tensor, n: int, band: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """For each block with needed rows: these, the tokens that they read, filters (H, r, w)."""
    for taken, window, local, columns in _needed_blocks(places, n, band):
        yield taken, window, band[:, :, columns].index_select(1, local)


def _input_blocks(places: Tensor, n: int, band: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """For each block of tokens that rows have read: the rows, the block, its filters (H, L, r)."""
    parts = list(blocks(n, band))
    edges = torch.tensor([[window.start, window.stop] for _, window, _ in parts])
    ends = torch.searchsorted(places, edges).tolist()
    for (rows, window, part), (first, last) in zip(parts, ends, strict=True):
        if last > first:
            columns = places[first:last] - window.start
            yield slice(first, last), rows, band[part].index_select(2, columns)


def _write_by_taps(
    out: Tensor,
    v: Tensor,
    weight: Tensor,
    index: Tensor,
    cu_seqlens: Tensor,
    add: Tensor | None,
) -> None:
    """The convolution where places cannot be read and no kernel runs: tap after tap."""
    wide, values = compute_dtype(v), v[0].transpose(0, 1)  # (T, H, D)
    total = values.new_zeros(len(index), *values.shape[1:], dtype=wide)
    for taps, sources, filters in _taps(index, weight.to(wide), cu_seqlens, len(values)):
        read = values[sources].to(wide)  # (R, t, H, D)
        for tap in range(len(taps)):
            total.addcmul_(read[:, tap], filters[:, tap])
    total = total.transpose(0, 1)[None]
    out.copy_(total if add is None else add + total)


def _add_grad_by_taps(
    grad_v: Tensor,
    grad: Tensor,
    v: Tensor,
    weight: Tensor,
    index: Tensor,
    cu_seqlens: Tensor,
) -> Tensor:
    wide, values = compute_dtype(v), v[0].transpose(0, 1)  # (T, H, D)
    grads = grad[0].transpose(0, 1).to(wide)  # (R, H, D)
    total = torch.zeros_like(values, dtype=wide)
    ones, of_weight = torch.ones_like(weight, dtype=wide), []
    for taps, sources, filters in _taps(index, weight.to(wide), cu_seqlens, len(values)):
        for tap in range(len(taps)):
            # The rows of one tap read different tokens, so the order of the sums is fixed.
            total.index_add_(0, sources[:, tap], grads * filters[:, tap])
    for _, sources, inside in _taps(index, ones, cu_seqlens, len(values)):
        products = values[sources].to(wide) * grads[:, None] * inside  # (R, t, H, D)
        of_weight.append(products.sum((0, 3)))  # (t, H)
    grad_v += total.transpose(0, 1)[None]
    return torch.cat(of_weight).t().contiguous()[:, None, :, None]


def _taps(
    index: Tensor, weight: Tensor, cu_seqlens: Tensor, count: int
) -> Iterator[tuple[range, Tensor, Tensor]]:
    """For some taps at a time: these, the token (R, t) that each row reads, and its factor
    (R, t, H, 1), which is 0 beyond the ends of the bag.
    """
    kernel = weight.shape[2]
    bounds = cu_seqlens.to(index.device, torch.int64)
    bag = torch.searchsorted(bounds, index, right=True) - 1
    first, stop = bounds[bag][:, None], bounds[bag + 1][:, None]
    filters = weight[:, 0, :, 0].t()[..., None]  # (K, H, 1)
    # The rows of all taps together are no more than the tokens.
    at_a_time = max(1, min(kernel, count // max(1, len(index))))
    for part in chunks(kernel, at_a_time):
        taps = range(part.start, part.stop)
        shift = torch.arange(part.start, part.stop, device=index.device) - kernel // 2
        sources = index[:, None] + shift
        inside = (sources >= first) & (sources < stop)
        sources = torch.where(inside, sources, index[:, None])
        yield taps, sources, inside[..., None, None] * filters[part]


@torch.library.register_fake(token_conv_rows_fwd)
def _(v, weight, add, index, cu_seqlens, bounds=None):
    return v.new_empty(1, index.shape[0], v.shape[1], v.shape[3]).transpose(1, 2)


@torch.library.register_fake(token_conv_rows_bwd)
def _(grad, v, weight, index, cu_seqlens, bounds=None):
    return token_major(v), torch.empty_like(weight, dtype=compute_dtype(v))


def _setup(ctx, inputs, output):
    v, weight, _, index, cu_seqlens, ctx.bounds = inputs
    ctx.save_for_backward(v, weight, index, cu_seqlens)


def _backward(ctx, grad):
    weight = ctx.saved_tensors[1]
    grad_v, grad_weight = _gradient(grad, *ctx.saved_tensors, ctx.bounds)
    grad_add = grad if ctx.needs_input_grad[2] else None
    return grad_v, grad_weight.to(weight.dtype), grad_add, None, None, None


def _setup_nothing(ctx, inputs, output):
    pass


def _second_backward(ctx, *_):
    raise NotImplementedError("token_conv_rows is differentiable once; token_conv is twice")


_conv_rows = differentiable(token_conv_rows_fwd, _setup, _backward)
_gradient = differentiable(token_conv_rows_bwd, _setup_nothing, _second_backward)
