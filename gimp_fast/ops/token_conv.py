"""Depthwise convolution along the tokens of a bag: by Triton kernels, or as banded products."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gimp_fast.ops import token_conv_triton
from gimp_fast.ops.packing import Bags, bag_slices, operands, spans_of, validate_packed
from gimp_fast.ops.registration import compute_dtype, differentiable, operator, token_major

# Tokens of one product. Longer blocks multiply more zeros, but a GPU needs few launches. (A GPU
# multiplies only what its kernels do not take: fp64, or without Triton.)
BLOCK_CPU = 64
BLOCK_GPU = 512


def token_conv(
    v: Tensor, weight: Tensor, *, add: Tensor | None = None, cu_seqlens: Tensor | Bags | None = None
) -> Tensor:
    """out[n] = add[n] + Σₜ weight[t] · v[n + t − (K−1)/2], with zeros beyond the ends of the bag.

    The residual of Nyström attention over its values (GiMP, after Nyströmformer, Xiong et al. 2021,
    figure 2). Each head has one filter, which its D channels share. The result equals ``Conv2d(H,
    H, (K, 1), padding=(K // 2, 0), groups=H, bias=False)`` of each bag by itself. Output and
    gradient of a bag are bitwise the same alone, in a batch, or packed. Sums are in fp32 or wider.

    Args:
        v: (B, H, N, D) of any floating dtype, any strides; with ``cu_seqlens`` (1, H, T, D).
        weight: (H, 1, K, 1) with K odd, of any floating dtype.
        add: a tensor of the shape and dtype of v, to which the convolution is added.
        cu_seqlens: (B + 1,) int32 or int64 bounds of packed bags, or bags.

    Returns:
        Shape and dtype of v; memory holds the heads of a token together.

    Raises:
        ValueError: shapes, dtypes or bounds do not fit.
    """
    validate_conv(v, weight, add, cu_seqlens)
    return _conv(v, weight, add, *operands(cu_seqlens, v.shape[2]), False)


def validate_conv(
    v: Tensor, weight: Tensor, add: Tensor | None, cu_seqlens: Tensor | Bags | None
) -> None:
    if v.dim() != 4 or not v.is_floating_point():
        raise ValueError(f"token_conv: v must be (B, H, N, D), got {v.dtype} {tuple(v.shape)}")
    if (
        weight.dim() != 4
        or weight.shape != (v.shape[1], 1, weight.shape[2], 1)
        or weight.shape[2] % 2 == 0
        or not weight.is_floating_point()
    ):
        raise ValueError(
            f"token_conv: weight must be ({v.shape[1]}, 1, K, 1) with K odd, "
            f"got {weight.dtype} {tuple(weight.shape)}"
        )
    if add is not None and (add.shape != v.shape or add.dtype != v.dtype):
        raise ValueError(
            f"token_conv: add must be {v.dtype} {tuple(v.shape)} like v, "
            f"got {add.dtype} {tuple(add.shape)}"
        )
    validate_packed("token_conv", v, cu_seqlens)


@operator
def token_conv_fwd(
    v: Tensor,
    weight: Tensor,
    add: Tensor | None,
    cu_seqlens: Tensor | None,
    bounds: list[int] | None = None,
    flip: bool = False,
) -> Tensor:
    """The convolution, as a registered operator; with ``flip``, that of the filter from its end.

    ``bounds`` are the numbers in ``cu_seqlens``; if they are None, products read the tensor.
    """
    if token_conv_triton.takes(v):
        return token_conv_triton.token_conv_fwd(v, weight, add, cu_seqlens, bounds, flip)
    out = token_major(v)
    weight = weight.flip(2) if flip else weight
    with torch.autocast(v.device.type, enabled=False):
        write_token_conv(out, v, weight, spans_of(cu_seqlens, bounds, v.shape[2]), add)
    return out


def write_token_conv(
    out: Tensor, v: Tensor, weight: Tensor, spans: list[tuple[int, int]] | None, add: Tensor | None
) -> None:
    """Write the convolution, plus ``add``, which may be ``out``; without a gradient."""
    band = banded(weight.to(compute_dtype(v)), block_length(v))  # (H, L, L + K - 1)
    for entry, tokens in bag_slices(v, spans):
        addend = None if add is None else add[entry, :, tokens]
        _bag_fwd(v[entry, :, tokens], band, addend, out[entry, :, tokens])


@operator
def token_conv_weight_grad(
    grad: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None,
    kernel: int,
    bounds: list[int] | None = None,
) -> Tensor:
    """:func:`conv_weight_grad`, as a registered operator."""
    if token_conv_triton.takes(v):
        return token_conv_triton.token_conv_weight_grad(grad, v, cu_seqlens, bounds, kernel)
    with torch.autocast(v.device.type, enabled=False):
        return conv_weight_grad(grad, v, spans_of(cu_seqlens, bounds, v.shape[2]), kernel)


def conv_weight_grad(
    grad: Tensor, v: Tensor, spans: list[tuple[int, int]] | None, kernel: int
) -> Tensor:
    """Gradient of the weight, (H, 1, K, 1) in fp32 or wider, summed over bags in their order."""
    block = block_length(v)
    band = v.new_zeros(v.shape[1], block, block + kernel - 1, dtype=compute_dtype(v))
    for entry, tokens in bag_slices(v, spans):
        _add_band_grad(grad[entry, :, tokens], v[entry, :, tokens], band)
    return diagonals(band, kernel).sum(1)[:, None, :, None]


def _bag_fwd(v: Tensor, band: Tensor, add: Tensor | None, out: Tensor) -> None:
    """Write the convolution of one bag (H, N, D)."""
    for rows, window, part in blocks(v.shape[1], band):
        convolved = torch.bmm(band[part], v[:, window].to(band.dtype))  # (H, L, D)
        if add is None:
            out[:, rows] = convolved
        else:
            torch.add(add[:, rows], convolved, out=out[:, rows])


def _add_band_grad(grad: Tensor, v: Tensor, band: Tensor) -> None:
    """Add the gradient of the banded matrix from one bag (H, N, D); only its diagonals are used."""
    for rows, window, part in blocks(v.shape[1], band):
        grads, values = grad[:, rows].to(band.dtype), v[:, window].to(band.dtype)
        band[part] += torch.bmm(grads, values.mT)


def blocks(n: int, band: Tensor) -> Iterator[tuple[slice, slice, tuple[slice, slice, slice]]]:
    """For each block: rows of the output, the input rows they read, part of the banded matrix."""
    block, width = band.shape[1:]
    reach = (width - block) // 2
    for start in range(0, n, block):
        stop = min(start + block, n)
        first, last = max(0, start - reach), min(n, stop + reach)
        columns = slice(first - start + reach, last - start + reach)
        yield slice(start, stop), slice(first, last), (slice(None), slice(stop - start), columns)


def banded(weight: Tensor, block: int) -> Tensor:
    """Banded matrices (H, L, L + K - 1): each row holds the filter, one column further right."""
    h, _, k, _ = weight.shape
    band = weight.new_zeros(h, block, block + k - 1)
    diagonals(band, k).copy_(weight.reshape(h, 1, k))
    return band


def diagonals(band: Tensor, k: int) -> Tensor:
    """The K diagonals of (H, L, L + K - 1), as a view (H, L, K)."""
    h, block, width = band.shape
    return band.as_strided((h, block, k), (block * width, width + 1, 1))


def block_length(v: Tensor) -> int:
    return BLOCK_CPU if v.device.type == "cpu" else BLOCK_GPU


@torch.library.register_fake(token_conv_fwd)
def _(v, weight, add, cu_seqlens, bounds=None, flip=False):
    return token_major(v)


@torch.library.register_fake(token_conv_weight_grad)
def _(grad, v, cu_seqlens, kernel, bounds=None):
    return v.new_empty((v.shape[1], 1, kernel, 1), dtype=compute_dtype(v))


def _setup_conv(ctx, inputs, output):
    v, weight, _, cu_seqlens, ctx.bounds, ctx.flip = inputs
    ctx.save_for_backward(v, weight, cu_seqlens)


def _conv_backward(ctx, grad):
    v, weight, cu_seqlens = ctx.saved_tensors
    wants_v, wants_weight, wants_add = ctx.needs_input_grad[:3]
    grad_v = grad_weight = None
    if wants_v:
        grad_v = _conv(grad, weight, None, cu_seqlens, ctx.bounds, not ctx.flip)
    if wants_weight:
        grad_weight = _weight_grad(grad, v, cu_seqlens, weight.shape[2], ctx.bounds)
        grad_weight = (grad_weight.flip(2) if ctx.flip else grad_weight).to(weight.dtype)
    return grad_v, grad_weight, grad if wants_add else None, None, None, None


def _setup_weight_grad(ctx, inputs, output):
    grad, v, cu_seqlens, _, ctx.bounds = inputs
    ctx.save_for_backward(grad, v, cu_seqlens)


def _weight_grad_backward(ctx, weight):
    grad, v, cu_seqlens = ctx.saved_tensors
    packed = (cu_seqlens, ctx.bounds)
    grad_v = _conv(grad, weight, None, *packed, True)
    return _conv(v, weight, None, *packed, False), grad_v, None, None, None


_conv = differentiable(token_conv_fwd, _setup_conv, _conv_backward)
_weight_grad = differentiable(token_conv_weight_grad, _setup_weight_grad, _weight_grad_backward)
