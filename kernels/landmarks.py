"""Landmarks: means of M contiguous, balanced segments of the queries and keys, in one pass.

In the backward pass each token gets its share of its landmark's gradient.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from gimp_fast.kernels.bags import Bags, bag_rows, bag_size, load_rows, locate, store_rows
from gimp_fast.kernels.launch import Config, launch

CONFIG = Config(tokens=32, landmarks=1, num_warps=4, num_stages=2)


@triton.jit
def _segment_mean(
    x, marks, batch, head, bag, mark, n, first, x_b, x_h, x_n, H, M, D,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    count = tl.minimum(n, M).to(tl.int64)
    start = (mark * n.to(tl.int64)) // tl.maximum(count, 1)
    stop = ((mark + 1) * n.to(tl.int64)) // tl.maximum(count, 1)
    # A short bag has fewer landmarks; the other rows are zero.
    stop = tl.where(mark < count, stop, start)
    base = x + batch.to(tl.int64) * x_b + head.to(tl.int64) * x_h
    total = tl.zeros([BLOCK_D], tl.float32)
    for row in range(start, stop, BLOCK_N):
        rows = row + tl.arange(0, BLOCK_N)
        tile = load_rows(base, first + rows, x_n, rows < stop, D, BLOCK_D)
        total += tl.sum(tile.to(tl.float32), 0)
    mean = total / tl.maximum(stop - start, 1).to(tl.float32)
    d = tl.arange(0, BLOCK_D)
    row = (bag.to(tl.int64) * H + head) * M + mark
    tl.store(marks + row * D + d, mean.to(marks.dtype.element_ty), mask=d < D)


@triton.jit(do_not_specialize=["tokens", "num_bags"])
def _landmarks_fwd_kernel(
    cu_seqlens, tokens, num_bags, q, k, q_marks, k_marks,
    q_b, q_h, q_n, k_b, k_h, k_n, H, M, D,
    PACKED: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    bag = tl.program_id(0) // M
    mark = tl.program_id(0) % M
    head = tl.program_id(1)
    n, first, batch = bag_rows(cu_seqlens, tokens, bag, PACKED)
    if tl.program_id(2) == 0:
        _segment_mean(
            q, q_marks, batch, head, bag, mark, n, first, q_b, q_h, q_n, H, M, D, BLOCK_N, BLOCK_D
        )
    else:
        _segment_mean(
            k, k_marks, batch, head, bag, mark, n, first, k_b, k_h, k_n, H, M, D, BLOCK_N, BLOCK_D
        )


def landmarks_fwd(q: Tensor, k: Tensor, bags: Bags, num_marks: int) -> list[Tensor]:
    """Q̃ and K̃.

    Args:
        q, k: (B, H, N, D), or (1, H, T, D) packed; unit stride along D.
        num_marks: rows of the result; a bag of fewer tokens has zeros after its last.

    Returns:
        Two (B, H, M, D) in the dtype of q, summed in fp32.
    """
    return _means((q, k), bags, num_marks)


def landmarks_of(x: Tensor, bags: Bags, num_marks: int) -> Tensor:
    """The same of one tensor."""
    return _means((x,), bags, num_marks)[0]


def _means(tensors: tuple[Tensor, ...], bags: Bags, num_marks: int) -> list[Tensor]:
    q, k = tensors[0], tensors[-1]
    h, d = q.shape[1], q.shape[3]
    marks = [q.new_empty(bags.num_bags, h, num_marks, d) for _ in tensors]
    q_marks, k_marks = marks[0], marks[-1]
    launch(
        _landmarks_fwd_kernel,
        (bags.num_bags * num_marks, h, len(tensors)),
        CONFIG,
        *bags.arguments, q, k, q_marks, k_marks,
        *q.stride()[:3], *k.stride()[:3], h, num_marks, d,
        **bags.constants, BLOCK_N=CONFIG.tokens, BLOCK_D=block_d(d),
    )  # fmt: skip
    return marks


@triton.jit
def segment_share(grad_marks, rows, inside, n, M, D, BLOCK_D: tl.constexpr):
    """Each row's share of its landmark's gradient: the gradient ÷ the segment's length."""
    wide = rows.to(tl.int64)
    size = n.to(tl.int64)
    segment = ((wide + 1) * M - 1) // size
    length = ((segment + 1) * size) // M - (segment * size) // M
    share = load_rows(grad_marks, segment, D, inside, D, BLOCK_D)
    return share / tl.maximum(length, 1).to(tl.float32)[:, None]


@triton.jit(do_not_specialize=["tokens", "num_bags", "key_tokens"])
def _landmark_shares_kernel(
    cu_seqlens, tokens, num_bags, key_seqlens, key_tokens, grad_marks, grad,
    g_b, g_h, g_n, H, M, D,
    PACKED: tl.constexpr, SHARES: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    bag, index = locate(cu_seqlens, tokens, num_bags, tl.program_id(0), BLOCK_N, PACKED)
    n, first, batch = bag_rows(cu_seqlens, tokens, bag, PACKED)
    if index * BLOCK_N >= n:
        return
    rows = index * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = rows < n
    marks = grad_marks + (bag.to(tl.int64) * H + head) * M * D
    base = grad + batch.to(tl.int64) * g_b + head.to(tl.int64) * g_h
    if bag_size(key_seqlens, key_tokens, bag, PACKED) <= M:
        own = load_rows(marks, rows, D, inside, D, BLOCK_D)
        store_rows(base, first + rows, g_n, inside, own, D, BLOCK_D)
    elif SHARES:
        total = load_rows(base, first + rows, g_n, inside, D, BLOCK_D).to(tl.float32)
        total += segment_share(marks, rows, inside, n, M, D, BLOCK_D)
        store_rows(base, first + rows, g_n, inside, total, D, BLOCK_D)


def add_landmark_shares(
    grad: Tensor, grad_marks: Tensor, bags: Bags, keys: Bags, shares: bool
) -> None:
    """Add the gradient of the landmarks to that of their tokens, in place.

    Args:
        grad: (B, H, N, D), or (1, H, T, D) packed; unit stride along D. The tokens of a bag of
            N ≤ M are its landmarks: their rows are only written.
        grad_marks: (B, H, M, D) fp32.
        bags, keys: the bags of the gradient, and those of all tokens.
        shares: False if longer bags have their whole gradient already.
    """
    _, h, m, d = grad_marks.shape
    launch(
        _landmark_shares_kernel,
        (bags.tiles(CONFIG.tokens), h),
        CONFIG,
        *bags.arguments, *keys.whole, grad_marks, grad, *grad.stride()[:3], h, m, d,
        **bags.constants, SHARES=shares, BLOCK_N=CONFIG.tokens, BLOCK_D=block_d(d),
    )  # fmt: skip


def block_d(head_dim: int) -> int:
    """Columns of a tile: the head dim, padded to what a matrix instruction takes."""
    return max(16, triton.next_power_of_2(head_dim))
