"""Landmarks: means of M contiguous, balanced segments of the queries and keys, in one pass."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from gimp_fast.kernels.bags import Bags, bag_rows, load_rows
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


def block_d(head_dim: int) -> int:
    """Columns of a tile: the head dim, padded to what a matrix instruction takes."""
    return max(16, triton.next_power_of_2(head_dim))
