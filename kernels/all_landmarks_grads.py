"""Gradients by programs that hold all landmarks of a head, and take a chunk of its tokens.

They compute each score and its gradient once. The tiled kernels compute both again for the rows and
for the landmarks, and those of the queries a third time for the row sums: 16 products and five
exponentials of a score, here 10 and two.

The share of the queries in the gradient of Q̃ is known only after the pseudo-inverse. It is added in
a pass of its own, so a gradient in half precision is rounded twice, as by torch's autograd, which
adds up the two. The alternative, a kernel for the queries alone, computes two products again. For 8
bags of 6000 tokens, 8 heads and 256 landmarks in bf16 the pass moves 98 MB, 23 µs on an H200 and
105 on an RTX 3090; two products are 25 Gflop, at least 32 and 350 µs.
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
    load_rows,
    load_stats,
    locate_chunk,
    store_rows,
)
from gimp_fast.kernels.landmarks import block_d, segment_share
from gimp_fast.kernels.landmarks_to_keys import LOG2_E
from gimp_fast.kernels.launch import Architecture, Config, launch


@triton.jit(do_not_specialize=["tokens", "num_bags", "key_tokens"])
def _queries_to_landmarks_all_bwd_kernel(
    cu_seqlens, tokens, num_bags, key_seqlens, key_tokens,
    q, k_marks, mixed, grad_out, row_stats, part_dy, part_dk, grad_q,
    q_b, q_h, q_n, g_b, g_h, g_n, dq_b, dq_h, dq_n, scale, scale_log2, H, M,
    D: tl.constexpr, PACKED: tl.constexpr, FULL: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One chunk's share of the gradients of Y and K̃, and the gradient of its queries."""
    tile = tl.program_id(0)
    head = tl.program_id(1)
    bag, chunk = locate_chunk(cu_seqlens, tokens, num_bags, tile, PACKED)
    n, first, batch = bag_rows(cu_seqlens, tokens, bag, PACKED)
    length = chunk_size(n)
    if chunk * length >= n:
        return
    if bag_size(key_seqlens, key_tokens, bag, PACKED) <= M:
        return
    m = tl.arange(0, BLOCK_M)
    exists = m < M
    mark_rows = (bag.to(tl.int64) * H + head) * M
    stat_rows = (batch.to(tl.int64) * H + head) * tokens
    k_tile = load_rows(k_marks + mark_rows * D, m, D, exists, D, BLOCK_D)
    y_tile = load_rows(mixed + mark_rows * D, m, D, exists, D, BLOCK_D)
    q_base = q + batch.to(tl.int64) * q_b + head.to(tl.int64) * q_h
    g_base = grad_out + batch.to(tl.int64) * g_b + head.to(tl.int64) * g_h
    dq_base = grad_q + batch.to(tl.int64) * dq_b + head.to(tl.int64) * dq_h
    # Rows of the whole tensor: a bag's own numbers would cost registers.
    stop = first + tl.minimum((chunk + 1) * length, n)
    dy = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    dk = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for start in range(first + chunk * length, stop, BLOCK_N):
        rows = start + tl.arange(0, BLOCK_N)
        inside = rows < stop
        q_tile = load_rows(q_base, rows, q_n, inside, D, BLOCK_D)
        g_tile = load_rows(g_base, rows, g_n, inside, D, BLOCK_D)
        peak, log_total = load_stats(row_stats, stat_rows + rows, inside)
        scores = tl.dot(k_tile, tl.trans(q_tile), input_precision=PRECISION)
        # Queries past the end have zero rows of Q and of the gradient, and add nothing.
        weights = tl.exp2((scores - peak[None, :]) * scale_log2 - log_total[None, :])
        if not FULL:
            # A score of 0, for a landmark past the end, could be far above the peak.
            weights = tl.where(exists[:, None], weights, 0.0)
        dy = tl.dot(weights.to(g_tile.dtype), g_tile, dy, input_precision=PRECISION)
        d_weights = tl.dot(y_tile, tl.trans(g_tile), input_precision=PRECISION)
        delta = tl.sum(weights * d_weights, 0)
        d_scores = (weights * (d_weights - delta[None, :])).to(q_tile.dtype)
        dk = tl.dot(d_scores, q_tile, dk, input_precision=PRECISION)
        # The transpose of dQ: as many rows as channels, enough for the largest instruction.
        dq = tl.dot(tl.trans(k_tile), d_scores, input_precision=PRECISION)
        store_rows(dq_base, rows, dq_n, inside, tl.trans(dq) * scale, D, BLOCK_D)
    part_rows = (tile.to(tl.int64) * H + head) * M
    store_rows(part_dy + part_rows * D, m, D, exists, dy, D, BLOCK_D)
    store_rows(part_dk + part_rows * D, m, D, exists, dk * scale, D, BLOCK_D)


@triton.jit(do_not_specialize=["tokens", "num_bags"])
def _landmarks_to_keys_all_bwd_kernel(
    cu_seqlens, tokens, num_bags, q_marks, k, v, grad_values, mark_stats, mark_delta, grad_k_marks,
    part_grad, grad_k, grad_v, k_b, k_h, k_n, v_b, v_h, v_n, dk_b, dk_h, dk_n, dv_b, dv_h, dv_n,
    scale, scale_log2, H, M,
    D: tl.constexpr, PACKED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of a chunk of K, the share of K̃ included, and V; its share of that of Q̃."""
    tile = tl.program_id(0)
    head = tl.program_id(1)
    bag, chunk = locate_chunk(cu_seqlens, tokens, num_bags, tile, PACKED)
    n, first, batch = bag_rows(cu_seqlens, tokens, bag, PACKED)
    length = chunk_size(n)
    if chunk * length >= n:
        return
    m = tl.arange(0, BLOCK_M)
    exists = m < tl.minimum(n, M)
    mark_rows = (bag.to(tl.int64) * H + head) * M
    q_tile = load_rows(q_marks + mark_rows * D, m, D, exists, D, BLOCK_D)
    grad_tile = load_rows(grad_values + mark_rows * D, m, D, exists, D, BLOCK_D)
    # Landmarks that do not exist have zero rows of Q̃ and of the gradient: they add nothing.
    peak, log_total = load_stats(mark_stats, mark_rows + m, exists)
    delta = tl.load(mark_delta + mark_rows + m, mask=exists, other=0.0)
    k_base = k + batch.to(tl.int64) * k_b + head.to(tl.int64) * k_h
    v_base = v + batch.to(tl.int64) * v_b + head.to(tl.int64) * v_h
    dk_base = grad_k + batch.to(tl.int64) * dk_b + head.to(tl.int64) * dk_h
    dv_base = grad_v + batch.to(tl.int64) * dv_b + head.to(tl.int64) * dv_h
    # Rows of the whole tensor: a bag's own numbers would cost registers.
    stop = first + tl.minimum((chunk + 1) * length, n)
    grad = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for start in range(first + chunk * length, stop, BLOCK_N):
        rows = start + tl.arange(0, BLOCK_N)
        inside = rows < stop
        k_tile = load_rows(k_base, rows, k_n, inside, D, BLOCK_D)
        v_tile = load_rows(v_base, rows, v_n, inside, D, BLOCK_D)
        scores = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION)
        weights = tl.exp2((scores - peak[:, None]) * scale_log2 - log_total[:, None])
        # A score of 0, for a key past the end, could be far above the peak.
        weights = tl.where(inside[None, :], weights, 0.0)
        rounded = weights.to(grad_tile.dtype)
        dv = tl.dot(tl.trans(rounded), grad_tile, input_precision=PRECISION)
        store_rows(dv_base, rows, dv_n, inside, dv, D, BLOCK_D)
        d_weights = tl.dot(grad_tile, tl.trans(v_tile), input_precision=PRECISION)
        d_scores = (weights * (d_weights - delta[:, None])).to(q_tile.dtype)
        dk = tl.dot(tl.trans(d_scores), q_tile, input_precision=PRECISION) * scale
        if n > M:
            dk += segment_share(
                grad_k_marks + mark_rows * D, rows - first, inside, n, M, D, BLOCK_D
            )
        grad = tl.dot(d_scores, k_tile, grad, input_precision=PRECISION)
        store_rows(dk_base, rows, dk_n, inside, dk, D, BLOCK_D)
    part_rows = (tile.to(tl.int64) * H + head) * M
    store_rows(part_grad + part_rows * D, m, D, exists, grad * scale, D, BLOCK_D)


def queries_to_landmarks_all_bwd(
    q: Tensor, k_marks: Tensor, mixed: Tensor, grad_out: Tensor, row_stats: Tensor, grad_q: Tensor,
    bags: Bags, keys: Bags, scale: float, arch: Architecture, config: Config,
) -> Tensor:  # fmt: skip
    """By chunks (2, chunks, H, M, D) fp32, the gradients of Y and K̃; fills ``grad_q``.

    What the landmarks Q̃ give to the queries is not yet in it, nor the rows of bags of N ≤ M.
    """
    _, h, m, d = k_marks.shape
    parts = q.new_empty(2, bags.chunks(), h, m, d, dtype=torch.float32)
    launch(
        _queries_to_landmarks_all_bwd_kernel,
        (bags.chunks(), h),
        config,
        *bags.arguments, *keys.whole,
        q, k_marks, mixed, grad_out, row_stats, *parts, grad_q,
        *q.stride()[:3], *grad_out.stride()[:3], *grad_q.stride()[:3],
        scale, scale * LOG2_E, h, m, d,
        **bags.constants, FULL=m == config.landmarks, BLOCK_M=config.landmarks,
        BLOCK_N=config.tokens, BLOCK_D=block_d(d), PRECISION=arch.precision,
    )  # fmt: skip
    return parts


def landmarks_to_keys_all_bwd(
    q_marks: Tensor, k: Tensor, v: Tensor, grad_values: Tensor, mark_stats: Tensor,
    mark_delta: Tensor, grad_k_marks: Tensor, grad_k: Tensor, grad_v: Tensor, bags: Bags,
    scale: float, arch: Architecture, config: Config,
) -> Tensor:  # fmt: skip
    """By chunks (1, chunks, H, M, D) fp32, the gradient of Q̃; fills ``grad_k`` and ``grad_v``."""
    _, h, m, d = q_marks.shape
    parts = q_marks.new_empty(1, bags.chunks(), h, m, d, dtype=torch.float32)
    launch(
        _landmarks_to_keys_all_bwd_kernel,
        (bags.chunks(), h),
        config,
        *bags.arguments, q_marks, k, v, grad_values, mark_stats, mark_delta, grad_k_marks,
        parts, grad_k, grad_v, *k.stride()[:3], *v.stride()[:3],
        *grad_k.stride()[:3], *grad_v.stride()[:3], scale, scale * LOG2_E, h, m, d,
        **bags.constants, BLOCK_M=config.landmarks, BLOCK_N=config.tokens,
        BLOCK_D=block_d(d), PRECISION=arch.precision,
    )  # fmt: skip
    return parts
