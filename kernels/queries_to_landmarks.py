"""softmax(Q K̃ᵀ) Y: every query attends to the M landmarks of its bag, Y = Z W.

Backward keeps neither the scores nor the output: one kernel recomputes the row sums of P ∘ dP, one
sums the landmarks' gradients chunk by chunk, one gives the queries theirs. A bag of N ≤ M tokens
has its exact attention in W already: its rows are copied.

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
    chunk_size,
    chunks_of,
    load_rows,
    load_stats,
    locate,
    locate_chunk,
    store_rows,
    store_stats,
)
from gimp_fast.kernels.landmarks import block_d
from gimp_fast.kernels.landmarks_to_keys import COMBINE, LOG2_E, segment_share
from gimp_fast.kernels.launch import Architecture, choose, launch


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


def queries_to_landmarks_fwd(
    q: Tensor, k_marks: Tensor, mixed: Tensor, values: Tensor, bags: Bags, keys: Bags,
    scale: float, arch: Architecture,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The attention's output and the statistics of its rows.

    Args:
        mixed: Y = Z W (B, H, M, D) in the dtype of q.
        values: W (B, H, M, D) fp32, the output of bags of N ≤ M tokens.
        bags, keys: the bags of q, and those of all tokens.

    Returns:
        out like q, rows of all heads together in memory; row_stats (B, H, N, 2) or
        (1, H, T, 2) fp32.
    """
    batch, h, n, d = q.shape
    out = q.new_empty(batch, n, h, d).transpose(1, 2)
    row_stats = q.new_empty(batch, h, n, 2, dtype=torch.float32)
    config = choose(arch, "rows", q.dtype, d)
    launch(
        _queries_to_landmarks_fwd_kernel,
        (bags.tiles(config.tokens), h),
        config,
        *bags.arguments, *keys.whole,
        q, k_marks, mixed, values, out, row_stats,
        *q.stride()[:3], *out.stride()[:3], scale * LOG2_E, h, k_marks.shape[2], d,
        **bags.constants, BLOCK_M=config.landmarks, BLOCK_N=config.tokens,
        BLOCK_D=block_d(d), PRECISION=arch.precision,
    )  # fmt: skip
    return out, row_stats


@triton.jit(do_not_specialize=["tokens", "num_bags", "key_tokens"])
def _queries_to_landmarks_delta_kernel(
    cu_seqlens, tokens, num_bags, key_seqlens, key_tokens,
    q, k_marks, mixed, grad_out, row_stats, row_delta,
    q_b, q_h, q_n, g_b, g_h, g_n, scale_log2, H, M, D,
    PACKED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Row sums of P ∘ dP, which are the row sums of the output times its gradient."""
    head = tl.program_id(1)
    bag, index = locate(cu_seqlens, tokens, num_bags, tl.program_id(0), BLOCK_N, PACKED)
    n, first, batch = bag_rows(cu_seqlens, tokens, bag, PACKED)
    if index * BLOCK_N >= n:
        return
    if bag_size(key_seqlens, key_tokens, bag, PACKED) <= M:
        return
    rows = index * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = rows < n
    mark_rows = (bag.to(tl.int64) * H + head) * M
    stat_rows = (batch.to(tl.int64) * H + head) * tokens + first
    q_base = q + batch.to(tl.int64) * q_b + head.to(tl.int64) * q_h
    g_base = grad_out + batch.to(tl.int64) * g_b + head.to(tl.int64) * g_h
    q_tile = load_rows(q_base, first + rows, q_n, inside, D, BLOCK_D)
    g_tile = load_rows(g_base, first + rows, g_n, inside, D, BLOCK_D)
    peak, log_total = load_stats(row_stats, stat_rows + rows, inside)
    delta = tl.zeros([BLOCK_N], tl.float32)
    for start in range(0, M, BLOCK_M):
        m = start + tl.arange(0, BLOCK_M)
        exists = m < M
        k_tile = load_rows(k_marks + mark_rows * D, m, D, exists, D, BLOCK_D)
        y_tile = load_rows(mixed + mark_rows * D, m, D, exists, D, BLOCK_D)
        scores = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION)
        weights = tl.exp2((scores - peak[:, None]) * scale_log2 - log_total[:, None])
        weights = tl.where(exists[None, :], weights, 0.0)
        d_weights = tl.dot(g_tile, tl.trans(y_tile), input_precision=PRECISION)
        delta += tl.sum(weights * d_weights, 1)
    tl.store(row_delta + stat_rows + rows, delta, mask=inside)


@triton.jit(do_not_specialize=["tokens", "num_bags", "key_tokens"])
def _queries_to_landmarks_bwd_marks_kernel(
    cu_seqlens, tokens, num_bags, key_seqlens, key_tokens,
    q, k_marks, mixed, grad_out, row_stats, row_delta,
    part_dy, part_dk, q_b, q_h, q_n, g_b, g_h, g_n, scale, scale_log2, H, M, D,
    PACKED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One chunk's share of the gradients of Y and K̃."""
    tile = tl.program_id(0)
    head = tl.program_id(2)
    bag, chunk = locate_chunk(cu_seqlens, tokens, num_bags, tile, PACKED)
    n, first, batch = bag_rows(cu_seqlens, tokens, bag, PACKED)
    length = chunk_size(n)
    if chunk * length >= n:
        return
    if bag_size(key_seqlens, key_tokens, bag, PACKED) <= M:
        return
    m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    exists = m < M
    mark_rows = (bag.to(tl.int64) * H + head) * M
    stat_rows = (batch.to(tl.int64) * H + head) * tokens + first
    k_tile = load_rows(k_marks + mark_rows * D, m, D, exists, D, BLOCK_D)
    y_tile = load_rows(mixed + mark_rows * D, m, D, exists, D, BLOCK_D)
    q_base = q + batch.to(tl.int64) * q_b + head.to(tl.int64) * q_h
    g_base = grad_out + batch.to(tl.int64) * g_b + head.to(tl.int64) * g_h
    stop = tl.minimum((chunk + 1) * length, n)
    dy = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    dk = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for start in range(chunk * length, stop, BLOCK_N):
        rows = start + tl.arange(0, BLOCK_N)
        inside = rows < stop
        q_tile = load_rows(q_base, first + rows, q_n, inside, D, BLOCK_D)
        g_tile = load_rows(g_base, first + rows, g_n, inside, D, BLOCK_D)
        peak, log_total = load_stats(row_stats, stat_rows + rows, inside)
        delta = tl.load(row_delta + stat_rows + rows, mask=inside, other=0.0)
        scores = tl.dot(k_tile, tl.trans(q_tile), input_precision=PRECISION)
        # Queries past the end have zero rows of Q and of the gradient, and add nothing.
        weights = tl.exp2((scores - peak[None, :]) * scale_log2 - log_total[None, :])
        dy = tl.dot(weights.to(g_tile.dtype), g_tile, dy, input_precision=PRECISION)
        d_weights = tl.dot(y_tile, tl.trans(g_tile), input_precision=PRECISION)
        d_scores = weights * (d_weights - delta[None, :])
        dk = tl.dot(d_scores.to(q_tile.dtype), q_tile, dk, input_precision=PRECISION)
    part_rows = (tile.to(tl.int64) * H + head) * M
    store_rows(part_dy + part_rows * D, m, D, exists, dy, D, BLOCK_D)
    store_rows(part_dk + part_rows * D, m, D, exists, dk * scale, D, BLOCK_D)


@triton.jit(do_not_specialize=["tokens", "num_bags", "key_tokens"])
def _queries_to_landmarks_bwd_rows_kernel(
    cu_seqlens, tokens, num_bags, key_seqlens, key_tokens,
    q, k_marks, mixed, grad_out, row_stats, row_delta, grad_q_marks,
    grad_q, q_b, q_h, q_n, g_b, g_h, g_n, dq_b, dq_h, dq_n, scale, scale_log2, H, M, D,
    PACKED: tl.constexpr, SHARES: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of a tile of Q, with SHARES including its share of the gradient of Q̃."""
    head = tl.program_id(1)
    bag, index = locate(cu_seqlens, tokens, num_bags, tl.program_id(0), BLOCK_N, PACKED)
    n, first, batch = bag_rows(cu_seqlens, tokens, bag, PACKED)
    if index * BLOCK_N >= n:
        return
    rows = index * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = rows < n
    mark_rows = (bag.to(tl.int64) * H + head) * M
    dq_base = grad_q + batch.to(tl.int64) * dq_b + head.to(tl.int64) * dq_h
    if bag_size(key_seqlens, key_tokens, bag, PACKED) <= M:
        exact = load_rows(grad_q_marks + mark_rows * D, rows, D, inside, D, BLOCK_D)
        store_rows(dq_base, first + rows, dq_n, inside, exact, D, BLOCK_D)
    else:
        stat_rows = (batch.to(tl.int64) * H + head) * tokens + first
        q_base = q + batch.to(tl.int64) * q_b + head.to(tl.int64) * q_h
        g_base = grad_out + batch.to(tl.int64) * g_b + head.to(tl.int64) * g_h
        q_tile = load_rows(q_base, first + rows, q_n, inside, D, BLOCK_D)
        g_tile = load_rows(g_base, first + rows, g_n, inside, D, BLOCK_D)
        peak, log_total = load_stats(row_stats, stat_rows + rows, inside)
        delta = tl.load(row_delta + stat_rows + rows, mask=inside, other=0.0)
        dq = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
        for start in range(0, M, BLOCK_M):
            m = start + tl.arange(0, BLOCK_M)
            exists = m < M
            k_tile = load_rows(k_marks + mark_rows * D, m, D, exists, D, BLOCK_D)
            y_tile = load_rows(mixed + mark_rows * D, m, D, exists, D, BLOCK_D)
            scores = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION)
            # A score of 0, for a landmark past the end, could be far above the peak.
            weights = tl.exp2((scores - peak[:, None]) * scale_log2 - log_total[:, None])
            weights = tl.where(exists[None, :], weights, 0.0)
            d_weights = tl.dot(g_tile, tl.trans(y_tile), input_precision=PRECISION)
            d_scores = weights * (d_weights - delta[:, None])
            dq = tl.dot(d_scores.to(k_tile.dtype), k_tile, dq, input_precision=PRECISION)
        dq = dq * scale
        if SHARES:
            dq += segment_share(grad_q_marks + mark_rows * D, rows, inside, n, M, D, BLOCK_D)
        store_rows(dq_base, first + rows, dq_n, inside, dq, D, BLOCK_D)


@triton.jit(do_not_specialize=["tokens", "num_bags", "key_tokens"])
def _sum_chunks_kernel(
    cu_seqlens, tokens, num_bags, key_seqlens, key_tokens,
    part, grad, H, M, D,
    PACKED: tl.constexpr, ACCUMULATE: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    mark_tiles = tl.cdiv(M, BLOCK_M)
    bag = tl.program_id(0) // mark_tiles
    head = tl.program_id(1)
    m = (tl.program_id(0) % mark_tiles) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = bag_size(key_seqlens, key_tokens, bag, PACKED)
    inside = m < tl.minimum(n, M)
    mark_rows = (bag.to(tl.int64) * H + head) * M
    # A bag of N ≤ M tokens has no queries-to-landmarks part.
    if ACCUMULATE:
        total = load_rows(grad + mark_rows * D, m, D, inside & (n > M), D, BLOCK_D)
        here = inside
    else:
        total = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
        here = inside & (n > M)
    first_chunk, chunks = chunks_of(cu_seqlens, tokens, num_bags, bag, PACKED)
    for chunk in range(0, chunks):
        part_rows = ((first_chunk + chunk).to(tl.int64) * H + head) * M
        total += load_rows(part + part_rows * D, m, D, here, D, BLOCK_D)
    store_rows(grad + mark_rows * D, m, D, m < M, total, D, BLOCK_D)


def sum_chunks(
    part: Tensor, bags: Bags, keys: Bags, num_marks: int, onto: Tensor | None = None
) -> Tensor:
    """Partial gradients of M landmarks, summed over the chunks of each bag in order.

    Args:
        part: (chunks, H, M, D) fp32.
        bags, keys: the bags that were cut into chunks, and those of all tokens.
        onto: (B, H, M, D) fp32 to add to in place. Bags of N ≤ M tokens are summed only here, and
            onto zero: their landmarks have no other gradient.

    Returns:
        (B, H, M, D) fp32.
    """
    _, h, m, d = part.shape
    grad = part.new_empty(bags.num_bags, h, num_marks, d) if onto is None else onto
    launch(
        _sum_chunks_kernel,
        (bags.num_bags * triton.cdiv(m, COMBINE.landmarks), h),
        COMBINE,
        *bags.arguments, *keys.whole, part, grad, h, m, d,
        **bags.constants, ACCUMULATE=onto is not None, BLOCK_M=COMBINE.landmarks,
        BLOCK_D=block_d(d),
    )  # fmt: skip
    return grad


def queries_to_landmarks_bwd_marks(
    q: Tensor, k_marks: Tensor, mixed: Tensor, grad_out: Tensor, row_stats: Tensor, bags: Bags,
    keys: Bags, scale: float, arch: Architecture,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Row sums (B, H, N), and by chunks (chunks, H, M, D) the gradients of Y and K̃; fp32."""
    _, h, m, d = k_marks.shape
    row_delta = torch.empty_like(row_stats[..., 0])
    rows = choose(arch, "rows", q.dtype, d)
    strides = (*q.stride()[:3], *grad_out.stride()[:3])
    launch(
        _queries_to_landmarks_delta_kernel,
        (bags.tiles(rows.tokens), h),
        rows,
        *bags.arguments, *keys.whole,
        q, k_marks, mixed, grad_out, row_stats, row_delta,
        *strides, scale * LOG2_E, h, m, d,
        **bags.constants, BLOCK_M=rows.landmarks, BLOCK_N=rows.tokens,
        BLOCK_D=block_d(d), PRECISION=arch.precision,
    )  # fmt: skip
    chunks = bags.chunks()
    part_dy, part_dk = (q.new_empty(chunks, h, m, d, dtype=torch.float32) for _ in range(2))
    config = choose(arch, "reduce_bwd", q.dtype, d)
    launch(
        _queries_to_landmarks_bwd_marks_kernel,
        (chunks, triton.cdiv(m, config.landmarks), h),
        config,
        *bags.arguments, *keys.whole,
        q, k_marks, mixed, grad_out, row_stats, row_delta, part_dy, part_dk,
        *strides, scale, scale * LOG2_E, h, m, d,
        **bags.constants, BLOCK_M=config.landmarks, BLOCK_N=config.tokens,
        BLOCK_D=block_d(d), PRECISION=arch.precision,
    )  # fmt: skip
    return row_delta, part_dy, part_dk


def queries_to_landmarks_bwd_rows(
    q: Tensor, k_marks: Tensor, mixed: Tensor, grad_out: Tensor, row_stats: Tensor,
    row_delta: Tensor, grad_q_marks: Tensor, grad_q: Tensor, bags: Bags, keys: Bags, shares: bool,
    scale: float, arch: Architecture,
) -> None:  # fmt: skip
    """Fill ``grad_q``, with ``shares`` including the landmarks' (gradient of Q̃, fp32)."""
    _, h, m, d = k_marks.shape
    config = choose(arch, "rows_bwd", q.dtype, d)
    launch(
        _queries_to_landmarks_bwd_rows_kernel,
        (bags.tiles(config.tokens), h),
        config,
        *bags.arguments, *keys.whole,
        q, k_marks, mixed, grad_out, row_stats, row_delta, grad_q_marks, grad_q,
        *q.stride()[:3], *grad_out.stride()[:3], *grad_q.stride()[:3],
        scale, scale * LOG2_E, h, m, d,
        **bags.constants, SHARES=shares, BLOCK_M=config.landmarks, BLOCK_N=config.tokens,
        BLOCK_D=block_d(d), PRECISION=arch.precision,
    )  # fmt: skip
