"""softmax(Q K̃ᵀ) Y: every query attends to the M landmarks of its bag, Y = Z W.

A program takes a tile of queries, or several tiles with all landmarks of the head, which it then
loads once. A bag of N ≤ M tokens has its exact attention in W already: its rows are copied.

The queries may be only some of the tokens: they have bounds of their own, and ``key_seqlens`` and
``key_tokens`` say how many tokens a bag has.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from gimp_fast.kernels.bags import (
    Bags,
    bag_rows,
    bag_size,
    load_rows,
    locate,
    store_rows,
    store_stats,
    token_major,
)
from gimp_fast.kernels.landmarks import block_d
from gimp_fast.kernels.landmarks_to_keys import LOG2_E
from gimp_fast.kernels.launch import Architecture, choose, choose_all, launch

# Tiles of a program that holds all landmarks: 6000 queries of 8 heads are 256 such programs of 64
# rows a tile, two for each multiprocessor of an H200.
TILES = 3


@triton.jit(do_not_specialize=["tokens", "num_bags", "key_tokens"])
def _queries_to_landmarks_fwd_kernel(
    cu_seqlens, tokens, num_bags, key_seqlens, key_tokens,
    q, k_marks, mixed, values, out, row_stats,
    q_b, q_h, q_n, out_b, out_h, out_n, scale_log2, H, M, D,
    PACKED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    bag, index = locate(cu_seqlens, tokens, num_bags, tl.program_id(0), BLOCK_N, PACKED)
    n, first, batch = bag_rows(cu_seqlens, tokens, bag, PACKED)
    if index * BLOCK_N >= n:
        return
    rows = index * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = rows < n
    mark_rows = (bag.to(tl.int64) * H + head) * M
    out_base = out + batch.to(tl.int64) * out_b + head.to(tl.int64) * out_h
    stat_rows = (batch.to(tl.int64) * H + head) * tokens + first + rows
    if bag_size(key_seqlens, key_tokens, bag, PACKED) <= M:
        exact = load_rows(values + mark_rows * D, rows, D, inside, D, BLOCK_D)
        store_rows(out_base, first + rows, out_n, inside, exact, D, BLOCK_D)
        none = tl.zeros([BLOCK_N], tl.float32)
        store_stats(row_stats, stat_rows, inside, none, none)
    else:
        q_base = q + batch.to(tl.int64) * q_b + head.to(tl.int64) * q_h
        q_tile = load_rows(q_base, first + rows, q_n, inside, D, BLOCK_D)
        peak = tl.full([BLOCK_N], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK_N], tl.float32)
        acc = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
        for start in range(0, M, BLOCK_M):
            m = start + tl.arange(0, BLOCK_M)
            exists = m < M
            k_tile = load_rows(k_marks + mark_rows * D, m, D, exists, D, BLOCK_D)
            scores = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION)
            scores = tl.where(exists[None, :], scores, float("-inf"))
            higher = tl.maximum(peak, tl.max(scores, 1))
            shrink = tl.exp2((peak - higher) * scale_log2)
            weights = tl.exp2((scores - higher[:, None]) * scale_log2)
            total = total * shrink + tl.sum(weights, 1)
            y_tile = load_rows(mixed + mark_rows * D, m, D, exists, D, BLOCK_D)
            acc = tl.dot(
                weights.to(y_tile.dtype), y_tile, acc * shrink[:, None], input_precision=PRECISION
            )
            peak = higher
        store_rows(out_base, first + rows, out_n, inside, acc / total[:, None], D, BLOCK_D)
        store_stats(row_stats, stat_rows, inside, peak, tl.log2(total))


@triton.jit(do_not_specialize=["tokens", "num_bags", "key_tokens"])
def _queries_to_landmarks_all_fwd_kernel(
    cu_seqlens, tokens, num_bags, key_seqlens, key_tokens,
    q, k_marks, mixed, values, out, row_stats,
    q_b, q_h, q_n, out_b, out_h, out_n, scale_log2, H, M,
    D: tl.constexpr, PACKED: tl.constexpr, FULL: tl.constexpr, RUN: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    bag, index = locate(cu_seqlens, tokens, num_bags, tl.program_id(0), RUN, PACKED)
    n, first, batch = bag_rows(cu_seqlens, tokens, bag, PACKED)
    if index * RUN >= n:
        return
    stop = tl.minimum((index + 1) * RUN, n)
    mark_rows = (bag.to(tl.int64) * H + head) * M
    out_base = out + batch.to(tl.int64) * out_b + head.to(tl.int64) * out_h
    stat_rows = (batch.to(tl.int64) * H + head) * tokens + first
    if bag_size(key_seqlens, key_tokens, bag, PACKED) <= M:
        for start in range(index * RUN, stop, BLOCK_N):
            rows = start + tl.arange(0, BLOCK_N)
            inside = rows < stop
            exact = load_rows(values + mark_rows * D, rows, D, inside, D, BLOCK_D)
            store_rows(out_base, first + rows, out_n, inside, exact, D, BLOCK_D)
            none = tl.zeros([BLOCK_N], tl.float32)
            store_stats(row_stats, stat_rows + rows, inside, none, none)
    else:
        m = tl.arange(0, BLOCK_M)
        exists = m < M
        k_tile = load_rows(k_marks + mark_rows * D, m, D, exists, D, BLOCK_D)
        y_tile = load_rows(mixed + mark_rows * D, m, D, exists, D, BLOCK_D)
        q_base = q + batch.to(tl.int64) * q_b + head.to(tl.int64) * q_h
        for start in range(index * RUN, stop, BLOCK_N):
            rows = start + tl.arange(0, BLOCK_N)
            inside = rows < stop
            q_tile = load_rows(q_base, first + rows, q_n, inside, D, BLOCK_D)
            scores = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION)
            if not FULL:
                scores = tl.where(exists[None, :], scores, float("-inf"))
            peak = tl.max(scores, 1)
            weights = tl.exp2((scores - peak[:, None]) * scale_log2)
            total = tl.sum(weights, 1)
            acc = tl.dot(weights.to(y_tile.dtype), y_tile, input_precision=PRECISION)
            store_rows(out_base, first + rows, out_n, inside, acc / total[:, None], D, BLOCK_D)
            store_stats(row_stats, stat_rows + rows, inside, peak, tl.log2(total))


def queries_to_landmarks_fwd(
    q: Tensor, k_marks: Tensor, mixed: Tensor, values: Tensor, bags: Bags, keys: Bags,
    num_landmarks: int, scale: float, arch: Architecture,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The attention's output and the statistics of its rows.

    Args:
        mixed: Y = Z W (B, H, M, D) in the dtype of q.
        values: W (B, H, M, D) fp32, the output of bags of N ≤ M tokens.
        bags, keys: the bags of q, and those of all tokens.
        num_landmarks: more than the M of k_marks in a batch of shorter bags.

    Returns:
        out like q, rows of all heads together in memory; row_stats (B, H, N, 2) or
        (1, H, T, 2) fp32.
    """
    batch, h, n, d = q.shape
    m = k_marks.shape[2]
    out = token_major(q)
    row_stats = q.new_empty(batch, h, n, 2, dtype=torch.float32)
    config = choose_all(arch, "all_rows", q.dtype, d, num_landmarks)
    if config is None:
        config = choose(arch, "rows", q.dtype, d)
        kernel, rows, constants = _queries_to_landmarks_fwd_kernel, config.tokens, {}
    else:
        kernel, rows = _queries_to_landmarks_all_fwd_kernel, TILES * config.tokens
        constants = {"RUN": rows, "FULL": m == config.landmarks}
    launch(
        kernel,
        (bags.tiles(rows), h),
        config,
        *bags.arguments, *keys.whole,
        q, k_marks, mixed, values, out, row_stats,
        *q.stride()[:3], *out.stride()[:3], scale * LOG2_E, h, m, d,
        **bags.constants, **constants, BLOCK_M=config.landmarks, BLOCK_N=config.tokens,
        BLOCK_D=block_d(d), PRECISION=arch.precision,
    )  # fmt: skip
    return out, row_stats
