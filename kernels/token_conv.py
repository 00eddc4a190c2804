"""The depthwise convolution along the tokens of a bag and its gradients, for all rows or for some.

Output and gradient of v are one kernel, which reads the filter forwards or backwards. To keep up
with the memory of the GPU, its cores must not wait for their L1 caches. So a thread computes four
neighbouring tokens, and reads each row of v once for the four, not once for each tap.

The gradient of the filter is summed in two stages, in a fixed order. Products of gradients and
values of 32 tokens are a matrix, whose diagonals belong to the taps; tensor cores add up the
matrices of a chunk. The second kernel adds up the chunks.

Rows are needed where ``places`` (T,) says so: the place of a token among them, or -1. Tiles without
such a token are skipped.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from gimp_fast.kernels.bags import (
    Bags,
    bag_rows,
    chunk_size,
    load_rows,
    locate,
    locate_chunk,
    store_rows,
)
from gimp_fast.kernels.landmarks import block_d
from gimp_fast.kernels.launch import Architecture, Config, architecture, ceil_div, launch

TOKENS = 128  # of a tile
COLUMNS = 64  # of a tile, at most
LINE = 128  # bytes of a row that a tile of products has
WEIGHT_GRAD = Config(tokens=32, landmarks=1, num_warps=4, num_stages=2)
SUM = Config(tokens=128, landmarks=32, num_warps=4, num_stages=1)
PLACES = Config(tokens=256, landmarks=1, num_warps=4, num_stages=1)


@triton.jit
def _bag(cu_seqlens, tokens, bag, PACKED: tl.constexpr):
    """As ``bag_rows``, but no bag leaves the tensor: bounds on a GPU are not read to check them."""
    n, first, batch = bag_rows(cu_seqlens, tokens, bag, PACKED)
    if PACKED:
        first = tl.minimum(tl.maximum(first, 0), tokens)
        n = tl.minimum(n, tokens - first)
    return n, first, batch


@triton.jit
def _in_memory(places, first, rows, stop, SOME: tl.constexpr):
    """Where rows of a bag lie in a tensor of all rows, or of the needed ones; and which do."""
    inside = (rows >= 0) & (rows < stop)
    if SOME:
        place = tl.load(places + first + rows, mask=inside, other=-1)
        return place, place >= 0
    else:
        return first + rows, inside


@triton.jit
def _tap(taps, tap, K: tl.constexpr, FLIP: tl.constexpr):
    return tl.load(taps + (K - 1 - tap if FLIP else tap)).to(tl.float32)


@triton.jit
def _add_tap(total, x, taps, tap: tl.constexpr, K: tl.constexpr, FLIP: tl.constexpr):
    if tap >= 0 and tap < K:
        total += x * _tap(taps, tap, K, FLIP)
    return total


@triton.jit
def _read(base, places, first, rows, n, v_n, D, GATHER: tl.constexpr, BLOCK_D: tl.constexpr):
    sources, inside = _in_memory(places, first, rows, n, GATHER)
    return load_rows(base, sources, v_n, inside, D, BLOCK_D).to(tl.float32)


@triton.jit
def _write(
    total, add, out, offset, places, first, rows, n, a_n, out_n, D,
    SCATTER: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    targets, inside = _in_memory(places, first, rows, n, SCATTER)
    if add is not None:
        total += load_rows(add + offset, targets, a_n, inside, D, BLOCK_D).to(tl.float32)
    store_rows(out, targets, out_n, inside, total, D, BLOCK_D)


@triton.jit(do_not_specialize=["tokens", "num_bags"])
def _token_conv_kernel(
    cu_seqlens, tokens, num_bags, places, v, weight, add, out,
    v_b, v_h, v_n, a_b, a_h, a_n, D,
    PACKED: tl.constexpr, K: tl.constexpr, FLIP: tl.constexpr,
    GATHER: tl.constexpr, SCATTER: tl.constexpr, WINDOW: tl.constexpr, UNROLL: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """GATHER: v has the needed rows only, the others are zero. SCATTER: add and out have."""
    bag, tile = locate(cu_seqlens, tokens, num_bags, tl.program_id(0), BLOCK_N, PACKED)
    n, first, batch = _bag(cu_seqlens, tokens, bag, PACKED)
    if tile * BLOCK_N >= n:
        return
    head = tl.program_id(1).to(tl.int64)
    heads = tl.num_programs(1)
    column = tl.program_id(2) * BLOCK_D
    width = D - column
    rows = tile * BLOCK_N + 4 * tl.arange(0, BLOCK_N // 4)
    source = rows - K // 2
    if GATHER or SCATTER:
        reach = tile * BLOCK_N - K // 2 + tl.arange(0, WINDOW)
        _, needed = _in_memory(places, first, reach, n, True)
        busy = tl.max(needed.to(tl.int32), 0) > 0
    else:
        busy = True
    base = v + batch.to(tl.int64) * v_b + head * v_h + column
    taps = weight + head * K
    total0 = tl.zeros([BLOCK_N // 4, BLOCK_D], tl.float32)
    total1 = tl.zeros([BLOCK_N // 4, BLOCK_D], tl.float32)
    total2 = tl.zeros([BLOCK_N // 4, BLOCK_D], tl.float32)
    total3 = tl.zeros([BLOCK_N // 4, BLOCK_D], tl.float32)
    if busy:
        # The first rows and the last are not within reach of all four tokens.
        for shift in tl.static_range(3):
            x = _read(base, places, first, source + shift, n, v_n, width, GATHER, BLOCK_D)
            total0 = _add_tap(total0, x, taps, shift, K, FLIP)
            total1 = _add_tap(total1, x, taps, shift - 1, K, FLIP)
            total2 = _add_tap(total2, x, taps, shift - 2, K, FLIP)
        for start in range(3, K, UNROLL):
            for step in tl.static_range(UNROLL):
                last = start + step
                x = _read(base, places, first, source + last, n, v_n, width, GATHER, BLOCK_D)
                total0 += x * _tap(taps, last, K, FLIP)
                total1 += x * _tap(taps, last - 1, K, FLIP)
                total2 += x * _tap(taps, last - 2, K, FLIP)
                total3 += x * _tap(taps, last - 3, K, FLIP)
        for shift in tl.static_range(K if K > 3 else 3, K + 3):
            x = _read(base, places, first, source + shift, n, v_n, width, GATHER, BLOCK_D)
            total1 = _add_tap(total1, x, taps, shift - 1, K, FLIP)
            total2 = _add_tap(total2, x, taps, shift - 2, K, FLIP)
            total3 = _add_tap(total3, x, taps, shift - 3, K, FLIP)
    row = heads * D
    to = out + batch.to(tl.int64) * tokens * row + head * D + column
    at = batch.to(tl.int64) * a_b + head * a_h + column
    _write(total0, add, to, at, places, first, rows, n, a_n, row, width, SCATTER, BLOCK_D)
    _write(total1, add, to, at, places, first, rows + 1, n, a_n, row, width, SCATTER, BLOCK_D)
    _write(total2, add, to, at, places, first, rows + 2, n, a_n, row, width, SCATTER, BLOCK_D)
    _write(total3, add, to, at, places, first, rows + 3, n, a_n, row, width, SCATTER, BLOCK_D)


@triton.jit(do_not_specialize=["tokens", "num_bags"])
def _token_conv_weight_grad_kernel(
    cu_seqlens, tokens, num_bags, places, grad, v, part,
    g_b, g_h, g_n, v_b, v_h, v_n, D,
    PACKED: tl.constexpr, K: tl.constexpr, GATHER: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """GATHER: grad has the needed rows only, the others are zero."""
    WINDOW: tl.constexpr = 2 * BLOCK_N
    column_blocks = tl.cdiv(D, BLOCK_D)
    column = (tl.program_id(2) % column_blocks) * BLOCK_D
    # The window holds BLOCK_N + 1 taps; a longer filter takes several programs.
    first_tap = (tl.program_id(2) // column_blocks) * (BLOCK_N + 1)
    head = tl.program_id(1).to(tl.int64)
    window = tl.arange(0, WINDOW)
    part_row = tl.program_id(0).to(tl.int64) * column_blocks + tl.program_id(2) % column_blocks
    to = part + (part_row * tl.num_programs(1) + head) * K + first_tap + window
    is_tap = (window <= BLOCK_N) & (first_tap + window < K)
    bag, chunk = locate_chunk(cu_seqlens, tokens, num_bags, tl.program_id(0), PACKED)
    n, first, batch = _bag(cu_seqlens, tokens, bag, PACKED)
    length = chunk_size(n)
    if chunk * length >= n:
        tl.store(to, tl.zeros([WINDOW], tl.float32), mask=is_tap)
        return
    stop = tl.minimum((chunk + 1) * length, n)
    g_base = grad + batch.to(tl.int64) * g_b + head * g_h + column
    v_base = v + batch.to(tl.int64) * v_b + head * v_h + column
    products = tl.zeros([BLOCK_N, WINDOW], tl.float32)
    for start in range(chunk * length, stop, BLOCK_N):
        rows, inside = _in_memory(places, first, start + tl.arange(0, BLOCK_N), stop, GATHER)
        reach = start + first_tap - K // 2 + window
        busy = tl.max(inside.to(tl.int32), 0) > 0 if GATHER else True
        if busy:
            g_tile = load_rows(g_base, rows, g_n, inside, D - column, BLOCK_D)
            exists = (reach >= 0) & (reach < n)
            v_tile = load_rows(v_base, first + reach, v_n, exists, D - column, BLOCK_D)
            products = tl.dot(g_tile, tl.trans(v_tile), products, input_precision=PRECISION)
    # Row i of the matrix has tap t in column i + t.
    diagonals = tl.arange(0, BLOCK_N)[:, None] + window[None, :]
    taps = tl.gather(products, tl.minimum(diagonals, WINDOW - 1), 1)
    tl.store(to, tl.sum(taps, 0), mask=is_tap)


@triton.jit(do_not_specialize=["count"])
def _sum_parts_kernel(part, total, count, size, BLOCK_C: tl.constexpr, BLOCK: tl.constexpr):
    """Sums of the columns of (count, size)."""
    column = tl.program_id(0) * BLOCK
    sums = tl.zeros([BLOCK_C, BLOCK], tl.float32)
    for start in range(0, count, BLOCK_C):
        rows = start + tl.arange(0, BLOCK_C)
        sums += load_rows(part + column, rows, size, rows < count, size - column, BLOCK)
    columns = column + tl.arange(0, BLOCK)
    tl.store(total + columns, tl.sum(sums, 0), mask=columns < size)


@triton.jit(do_not_specialize=["tokens", "count", "steps"])
def _places_kernel(index, places, tokens, count, steps, BLOCK: tl.constexpr):
    """The place of each token in the rising index, by bisection, or -1."""
    token = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    low = tl.zeros([BLOCK], tl.int32)
    high = low + count
    for _ in range(0, steps):
        middle = (low + high) // 2
        here = tl.load(index + middle, mask=middle < high, other=0)
        beyond = (middle < high) & (here < token)
        low = tl.where(beyond, middle + 1, low)
        high = tl.where(beyond, high, middle)
    found = tl.load(index + low, mask=low < count, other=-1) == token
    tl.store(places + token, tl.where(found, low, -1), mask=token < tokens)


def token_conv_fwd(
    v: Tensor, weight: Tensor, add: Tensor | None, cu_seqlens: Tensor | None, flip: bool = False
) -> Tensor:
    """The convolution, plus ``add``; with ``flip``, that of the filter from its end.

    Args:
        v, add: (B, H, N, D) fp32, bf16 or fp16, unit stride along D; packed (1, H, T, D).
        weight: (H, 1, K, 1), contiguous, of any floating dtype.
        cu_seqlens: (B + 1,) int32 on the device, of packed bags.

    Returns:
        Shape and dtype of v; memory holds the heads of a token together.
    """
    b, h, n, d = v.shape
    out = v.new_empty(b, n, h, d).transpose(1, 2)
    _convolve(v, weight, add, out, _bags(v, cu_seqlens), flip=flip)
    return out


def token_conv_weight_grad(
    grad: Tensor, v: Tensor, cu_seqlens: Tensor | None, kernel: int,
    arch: Architecture | None = None,
) -> Tensor:  # fmt: skip
    """Gradient of the filter, (H, 1, K, 1) fp32, from the gradient of the output."""
    return _weight_grad(grad, v, _bags(v, cu_seqlens), kernel, arch)


def token_conv_rows_fwd(
    v: Tensor, weight: Tensor, add: Tensor | None, index: Tensor, cu_seqlens: Tensor
) -> Tensor:
    """The rows of the convolution that are needed, plus ``add``, both (1, H, R, D).

    Args:
        index: (R,) int64, the needed tokens among the T packed ones, in rising order.
    """
    out = v.new_empty(1, len(index), v.shape[1], v.shape[3]).transpose(1, 2)
    bags, places = _bags(v, cu_seqlens), _places(index, v.shape[2])
    _convolve(v, weight, add, out, bags, places=places, scatter=True)
    return out


def token_conv_rows_bwd(
    grad: Tensor, v: Tensor, weight: Tensor, index: Tensor, cu_seqlens: Tensor,
    arch: Architecture | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of v (1, H, T, D) and of the filter, fp32, from that of the needed rows."""
    _, h, n, d = v.shape
    bags, places = _bags(v, cu_seqlens), _places(index, n)
    grad_v = v.new_empty(1, n, h, d).transpose(1, 2)
    _convolve(grad, weight, None, grad_v, bags, flip=True, places=places, gather=True)
    return grad_v, _weight_grad(grad, v, bags, weight.shape[2], arch, places)


def _convolve(
    v: Tensor, weight: Tensor, add: Tensor | None, out: Tensor, bags: Bags, *, flip: bool = False,
    places: Tensor | None = None, gather: bool = False, scatter: bool = False,
) -> None:  # fmt: skip
    _, h, _, d = v.shape
    kernel, block = weight.shape[2], min(COLUMNS, block_d(d))
    launch(
        _token_conv_kernel,
        (bags.tiles(TOKENS), h, ceil_div(d, block)),
        # Eight columns of four tokens for a thread.
        Config(tokens=TOKENS, landmarks=1, num_warps=block // 8, num_stages=1),
        *bags.arguments, places, v, weight, add, out,
        *v.stride()[:3], *((0, 0, 0) if add is None else add.stride()[:3]), d,
        **bags.constants, K=kernel, FLIP=flip, GATHER=gather, SCATTER=scatter,
        WINDOW=triton.next_power_of_2(TOKENS + kernel - 1), UNROLL=_unroll(kernel - 3),
        BLOCK_N=TOKENS, BLOCK_D=block,
    )  # fmt: skip


def _unroll(count: int) -> int:
    """Steps of a loop to write out: as many as share it evenly and leave registers free."""
    return next(steps for steps in (6, 5, 4, 3, 2, 1) if count % steps == 0)


def _weight_grad(
    grad: Tensor, v: Tensor, bags: Bags, kernel: int, arch: Architecture | None,
    places: Tensor | None = None,
) -> Tensor:  # fmt: skip
    _, h, _, d = v.shape
    arch = architecture(v.device) if arch is None else arch
    block = min(LINE // v.element_size(), block_d(d))
    column_blocks, tap_blocks = ceil_div(d, block), ceil_div(kernel, WEIGHT_GRAD.tokens + 1)
    part = v.new_empty(bags.chunks() * column_blocks, h, kernel, dtype=torch.float32)
    launch(
        _token_conv_weight_grad_kernel,
        (bags.chunks(), h, column_blocks * tap_blocks),
        WEIGHT_GRAD,
        *bags.arguments, places, grad, v, part, *grad.stride()[:3], *v.stride()[:3], d,
        **bags.constants, K=kernel, GATHER=places is not None, BLOCK_N=WEIGHT_GRAD.tokens,
        BLOCK_D=block, PRECISION=arch.precision,
    )  # fmt: skip
    total = v.new_empty(h, 1, kernel, 1, dtype=torch.float32)
    launch(
        _sum_parts_kernel,
        (ceil_div(h * kernel, SUM.landmarks),),
        SUM,
        part, total, len(part), h * kernel,
        BLOCK_C=SUM.tokens, BLOCK=SUM.landmarks,
    )  # fmt: skip
    return total


def _places(index: Tensor, tokens: int) -> Tensor:
    """(T,) int32, the place of each token in the index, or -1."""
    places = index.new_empty(tokens, dtype=torch.int32)
    count = len(index)
    launch(
        _places_kernel,
        (ceil_div(tokens, PLACES.tokens),),
        PLACES,
        index, places, tokens, count, count.bit_length(),
        BLOCK=PLACES.tokens,
    )  # fmt: skip
    return places


def _bags(v: Tensor, cu_seqlens: Tensor | None) -> Bags:
    return Bags(v.shape[0] if cu_seqlens is None else len(cu_seqlens) - 1, v.shape[2], cu_seqlens)
