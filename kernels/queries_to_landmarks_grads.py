"""Gradients of softmax(Q K̃ᵀ) Y.

Neither the scores nor the output are kept. Where all landmarks of a head fit into one program, a
kernel gives all gradients. Elsewhere one recomputes the row sums of P ∘ dP, one sums the landmarks'
gradients chunk by chunk, one gives the queries theirs. A bag of N ≤ M tokens has its exact
attention in W already: the gradients of its queries are those of its landmarks.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from gimp_fast.kernels.all_landmarks_grads import queries_to_landmarks_all_bwd
from gimp_fast.kernels.bags import (
    Bags,
    bag_rows,
    bag_size,
    chunk_size,
    load_rows,
    load_stats,
    locate,
    locate_chunk,
    store_rows,
    token_major,
)
from gimp_fast.kernels.chunk_sums import sum_chunks
from gimp_fast.kernels.landmarks import add_landmark_shares, block_d, segment_share
from gimp_fast.kernels.landmarks_to_keys import LOG2_E
from gimp_fast.kernels.launch import Architecture, choose, choose_all, launch


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


def queries_to_landmarks_bwd(
    q: Tensor, k_marks: Tensor, mixed: Tensor, grad_out: Tensor, row_stats: Tensor, bags: Bags,
    keys: Bags, num_landmarks: int, scale: float, arch: Architecture,
) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients of Y and K̃, and what :func:`queries_bwd` needs for that of the queries.

    Args:
        num_landmarks: more than the M of k_marks in a batch of shorter bags.

    Returns:
        (2, B, H, M, D) fp32 of Y and K̃; then either the gradient of q without what the landmarks
        Q̃ give to it, or the row sums of P ∘ dP (B, H, N) fp32.
    """
    operands = (q, k_marks, mixed, grad_out, row_stats)
    config = choose_all(arch, "all_rows_bwd", q.dtype, q.shape[3], num_landmarks)
    grad_q = row_delta = None
    if config is None:
        row_delta = _bwd_delta(*operands, bags, keys, scale, arch)
        parts = _bwd_marks(*operands, row_delta, bags, keys, scale, arch)
    else:
        grad_q = token_major(q)
        parts = queries_to_landmarks_all_bwd(*operands, grad_q, bags, keys, scale, arch, config)
    return sum_chunks(parts, bags, keys), grad_q, row_delta


def queries_bwd(
    grad_q: Tensor | None, row_delta: Tensor | None, q: Tensor, k_marks: Tensor, mixed: Tensor,
    grad_out: Tensor, row_stats: Tensor, grad_q_marks: Tensor, bags: Bags, keys: Bags,
    shares: bool, scale: float, arch: Architecture,
) -> Tensor:  # fmt: skip
    """Gradient of q, with ``shares`` including the landmarks' (gradient of Q̃, fp32).

    Without ``grad_q`` and ``row_delta`` no bag has more than M tokens.
    """
    if row_delta is not None:
        operands = (q, k_marks, mixed, grad_out, row_stats, row_delta)
        return _bwd_rows(*operands, grad_q_marks, bags, keys, shares, scale, arch)
    grad_q = token_major(q) if grad_q is None else grad_q
    add_landmark_shares(grad_q, grad_q_marks, bags, keys, shares)
    return grad_q


def _bwd_delta(
    q: Tensor, k_marks: Tensor, mixed: Tensor, grad_out: Tensor, row_stats: Tensor, bags: Bags,
    keys: Bags, scale: float, arch: Architecture,
) -> Tensor:  # fmt: skip
    """Row sums of P ∘ dP (B, H, N), fp32."""
    _, h, m, d = k_marks.shape
    row_delta = torch.empty_like(row_stats[..., 0])
    config = choose(arch, "rows", q.dtype, d)
    launch(
        _queries_to_landmarks_delta_kernel,
        (bags.tiles(config.tokens), h),
        config,
        *bags.arguments, *keys.whole,
        q, k_marks, mixed, grad_out, row_stats, row_delta,
        *q.stride()[:3], *grad_out.stride()[:3], scale * LOG2_E, h, m, d,
        **bags.constants, BLOCK_M=config.landmarks, BLOCK_N=config.tokens,
        BLOCK_D=block_d(d), PRECISION=arch.precision,
    )  # fmt: skip
    return row_delta


def _bwd_marks(
    q: Tensor, k_marks: Tensor, mixed: Tensor, grad_out: Tensor, row_stats: Tensor,
    row_delta: Tensor, bags: Bags, keys: Bags, scale: float, arch: Architecture,
) -> Tensor:  # fmt: skip
    """Gradients of Y and K̃ by chunks, (2, chunks, H, M, D) fp32."""
    _, h, m, d = k_marks.shape
    chunks = bags.chunks()
    parts = q.new_empty(2, chunks, h, m, d, dtype=torch.float32)
    config = choose(arch, "reduce_bwd", q.dtype, d)
    launch(
        _queries_to_landmarks_bwd_marks_kernel,
        (chunks, triton.cdiv(m, config.landmarks), h),
        config,
        *bags.arguments, *keys.whole,
        q, k_marks, mixed, grad_out, row_stats, row_delta, *parts,
        *q.stride()[:3], *grad_out.stride()[:3], scale, scale * LOG2_E, h, m, d,
        **bags.constants, BLOCK_M=config.landmarks, BLOCK_N=config.tokens,
        BLOCK_D=block_d(d), PRECISION=arch.precision,
    )  # fmt: skip
    return parts


def _bwd_rows(
    q: Tensor, k_marks: Tensor, mixed: Tensor, grad_out: Tensor, row_stats: Tensor,
    row_delta: Tensor, grad_q_marks: Tensor, bags: Bags, keys: Bags, shares: bool, scale: float,
    arch: Architecture,
) -> Tensor:  # fmt: skip
    """Gradient of q."""
    _, h, m, d = k_marks.shape
    grad_q = token_major(q)
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
    return grad_q
