"""Depthwise convolution along the tokens of a bag, as products with a banded matrix."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gimp_fast.ops.layout import compute_dtype, token_major
from gimp_fast.ops.packing import Bags, operands, spans_of, validate_bounds
from gimp_fast.ops.registration import operator

# Tokens of one product. Longer blocks multiply more zeros; a GPU wants few launches.
BLOCK_CPU = 64
BLOCK_GPU = 512


def token_conv(
    v: Tensor, weight: Tensor, *, add: Tensor | None = None, cu_seqlens: Tensor | Bags | None = None
) -> Tensor:
    """out[n] = add[n] + Σₜ weight[t] · v[n + t − (K−1)/2], zeros beyond the ends of the bag.

    The residual of Nyström attention over its values (GiMP, after Nyströmformer, Xiong et al. 2021,
    figure 2): one filter a head, shared by its D channels. The same as ``Conv2d(H, H, (K, 1),
    padding=(K // 2, 0), groups=H, bias=False)`` of each bag by itself. Output and gradient of a bag
    are bitwise the same alone, in a batch, or packed. Sums are at least fp32.

    Args:
        v: (B, H, N, D) of any floating dtype, any strides; with ``cu_seqlens`` (1, H, T, D).
        weight: (H, 1, K, 1) with K odd, of any floating dtype.
        add: shape and dtype of v: what the convolution is added to.
        cu_seqlens: (B + 1,) int32 or int64 bounds of packed bags.

    Returns:
        Shape and dtype of v; in memory the heads of a token are together.

    Raises:
        ValueError: shapes, dtypes or bounds that do not fit.
    """
    _validate(v, weight, add, cu_seqlens)
    return _conv(v, weight, add, *operands(cu_seqlens, v.shape[2]))


def _validate(
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
    if cu_seqlens is not None:
        if isinstance(cu_seqlens, Tensor):
            validate_bounds(cu_seqlens)
        if v.shape[0] != 1:
            raise ValueError(
                f"token_conv: packed bags need shape (1, H, T, D), got {tuple(v.shape)}"
            )


@operator
def token_conv_fwd(
    v: Tensor,
    weight: Tensor,
    add: Tensor | None,
    cu_seqlens: Tensor | None,
    bounds: list[int] | None = None,
) -> Tensor:
    """The registered operator; ``bounds`` are the numbers in ``cu_seqlens``, where known."""
    out = token_major(v)
    with torch.autocast(v.device.type, enabled=False):
        band = _band(weight.to(compute_dtype(v)), _block(v))  # (H, L, L + K - 1)
        for place, bag in _bags(v, spans_of(cu_seqlens, bounds, v.shape[2])):
            added = None if add is None else add[place, :, bag]
            _bag_fwd(v[place, :, bag], band, added, out[place, :, bag])
    return out


def add_token_conv(
    out: Tensor, v: Tensor, weight: Tensor, spans: list[tuple[int, int]] | None
) -> None:
    """Add the convolution of v to ``out``, which is like it, in place and without a gradient."""
    band = _band(weight.to(compute_dtype(v)), _block(v))
    for place, bag in _bags(v, spans):
        part = out[place, :, bag]
        _bag_fwd(v[place, :, bag], band, part, part)


@operator
def token_conv_weight_grad(
    grad: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None,
    kernel: int,
    bounds: list[int] | None = None,
) -> Tensor:
    """The registered operator: gradient of the weight, as :func:`conv_weight_grad`."""
    with torch.autocast(v.device.type, enabled=False):
        return conv_weight_grad(grad, v, spans_of(cu_seqlens, bounds, v.shape[2]), kernel)


def conv_weight_grad(
    grad: Tensor, v: Tensor, spans: list[tuple[int, int]] | None, kernel: int
) -> Tensor:
    """Gradient of the weight, (H, 1, K, 1) in at least fp32, summed over bags in their order."""
    block = _block(v)
    band = v.new_zeros(v.shape[1], block, block + kernel - 1, dtype=compute_dtype(v))
    for place, bag in _bags(v, spans):
        _add_band_grad(grad[place, :, bag], v[place, :, bag], band)
    return _diagonals(band, kernel).sum(1)[:, None, :, None]


def _bag_fwd(v: Tensor, band: Tensor, add: Tensor | None, out: Tensor) -> None:
    """Write the convolution of one bag (H, N, D)."""
    for rows, window, part in _blocks(v.shape[1], band):
        found = torch.bmm(band[part], v[:, window].to(band.dtype))  # (H, L, D)
        if add is None:
            out[:, rows] = found
        else:
            torch.add(add[:, rows], found, out=out[:, rows])


def _add_band_grad(grad: Tensor, v: Tensor, band: Tensor) -> None:
    """Add one bag's (H, N, D) gradient of the banded matrix, of which the diagonals count."""
    for rows, window, part in _blocks(v.shape[1], band):
        grads, values = grad[:, rows].to(band.dtype), v[:, window].to(band.dtype)
        band[part] += torch.bmm(grads, values.mT)


def _blocks(n: int, band: Tensor) -> Iterator[tuple[slice, slice, tuple[slice, slice, slice]]]:
    """Rows of the output, rows of the input that they see, and the part of the banded matrix."""
    block, width = band.shape[1:]
    reach = (width - block) // 2
    for start in range(0, n, block):
        stop = min(start + block, n)
        first, last = max(0, start - reach), min(n, stop + reach)
        columns = slice(first - start + reach, last - start + reach)
        yield slice(start, stop), slice(first, last), (slice(None), slice(stop - start), columns)


def _band(weight: Tensor, block: int) -> Tensor:
    """Matrices (H, L, L + K - 1): the filter in every row, one column on from row to row."""
    h, _, k, _ = weight.shape
    band = weight.new_zeros(h, block, block + k - 1)
    _diagonals(band, k).copy_(weight.reshape(h, 1, k))
    return band


def _diagonals(band: Tensor, k: int) -> Tensor:
    """The K diagonals of (H, L, L + K - 1), as a view (H, L, K)."""
    h, block, width = band.shape
    return band.as_strided((h, block, k), (block * width, width + 1, 1))


def _bags(v: Tensor, spans: list[tuple[int, int]] | None) -> list[tuple[int, slice]]:
    """Place in the batch dimension, and tokens, of each bag."""
    if spans is None:
        return [(place, slice(None)) for place in range(v.shape[0])]
    return [(0, slice(*span)) for span in spans]


def _block(v: Tensor) -> int:
    return BLOCK_CPU if v.device.type == "cpu" else BLOCK_GPU


@torch.library.register_fake(token_conv_fwd)
def _(v, weight, add, cu_seqlens, bounds=None):
    return token_major(v)


@torch.library.register_fake(token_conv_weight_grad)
def _(grad, v, cu_seqlens, kernel, bounds=None):
    return v.new_empty((v.shape[1], 1, kernel, 1), dtype=compute_dtype(v))


class _Conv(torch.autograd.Function):
    """The operator as ``torch.func`` wants it; the registered gradient alone it refuses."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs):
        return token_conv_fwd(*inputs)

    @staticmethod
    def setup_context(ctx, inputs, output):
        v, weight, _, cu_seqlens, ctx.bounds = inputs
        ctx.save_for_backward(v, weight, cu_seqlens)

    @staticmethod
    def backward(ctx, grad):
        v, weight, cu_seqlens = ctx.saved_tensors
        wants_v, wants_weight, wants_add = ctx.needs_input_grad[:3]
        grad_v = grad_weight = None
        if wants_v:
            grad_v = _conv(grad, weight.flip(2), None, cu_seqlens, ctx.bounds)
        if wants_weight:
            found = _weight_grad(grad, v, cu_seqlens, weight.shape[2], ctx.bounds)
            grad_weight = found.to(weight.dtype)
        return grad_v, grad_weight, grad if wants_add else None, None, None


class _WeightGrad(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs):
        return token_conv_weight_grad(*inputs)

    @staticmethod
    def setup_context(ctx, inputs, output):
        grad, v, cu_seqlens, _, ctx.bounds = inputs
        ctx.save_for_backward(grad, v, cu_seqlens)

    @staticmethod
    def backward(ctx, weight):
        grad, v, cu_seqlens = ctx.saved_tensors
        packed = (cu_seqlens, ctx.bounds)
        grad_v = _conv(grad, weight.flip(2), None, *packed)
        return _conv(v, weight, None, *packed), grad_v, None, None, None


def _conv(*inputs: Tensor | list[int] | None) -> Tensor:
    return (token_conv_fwd if _is_plain() else _Conv.apply)(*inputs)


def _weight_grad(*inputs: Tensor | list[int] | int | None) -> Tensor:
    return (token_conv_weight_grad if _is_plain() else _WeightGrad.apply)(*inputs)


def _is_plain() -> bool:
    """No gradient is wanted; or a compiler traces, with the gradients registered below."""
    return not torch.is_grad_enabled() or torch.compiler.is_compiling()


torch.library.register_autograd(token_conv_fwd, _Conv.backward, setup_context=_Conv.setup_context)
torch.library.register_autograd(
    token_conv_weight_grad, _WeightGrad.backward, setup_context=_WeightGrad.setup_context
)
