"""W = softmax(Q̃ Kᵀ) V: M landmarks attend to all keys of their bag, split over the keys.

Each program folds one chunk of keys into a tile of landmarks, as flash attention does; a second
kernel combines the chunks in order. The backward pass recomputes the weights from two statistics of
each row, its largest score and the base-2 logarithm of its sum, which are stored apart so that
neither rounds the other away. A bag of N ≤ M tokens has its own tokens as landmarks, and W is its
exact softmax attention.
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
from gimp_fast.kernels.launch import Architecture, Config, choose, launch

LOG2_E = 1.4426950408889634
COMBINE = Config(tokens=1, landmarks=16, num_warps=4, num_stages=2)


@triton.jit(do_not_specialize=["tokens", "num_bags"])
def _landmarks_to_keys_fwd_kernel(
    cu_seqlens, tokens, num_bags, q_marks, k, v, part_out, part_stats,
    k_b, k_h, k_n, v_b, v_h, v_n, scale_log2, H, M, D,
    PACKED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    head = tl.program_id(2)
    bag, chunk = locate_chunk(cu_seqlens, tokens, num_bags, tile, PACKED)
    n, first, batch = bag_rows(cu_seqlens, tokens, bag, PACKED)
    length = chunk_size(n)
    if chunk * length >= n:
        return
    m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    marks = tl.minimum(n, M)
    if tl.program_id(1) * BLOCK_M >= marks:
        return
    mark_rows = (bag.to(tl.int64) * H + head) * M
    q_tile = load_rows(q_marks + mark_rows * D, m, D, m < marks, D, BLOCK_D)
    k_base = k + batch.to(tl.int64) * k_b + head.to(tl.int64) * k_h
    v_base = v + batch.to(tl.int64) * v_b + head.to(tl.int64) * v_h
    stop = tl.minimum((chunk + 1) * length, n)
    peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    out = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for start in range(chunk * length, stop, BLOCK_N):
        rows = start + tl.arange(0, BLOCK_N)
        inside = rows < stop
        k_tile = load_rows(k_base, first + rows, k_n, inside, D, BLOCK_D)
        scores = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION)
        scores = tl.where(inside[None, :], scores, float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, 1))
        shrink = tl.exp2((peak - higher) * scale_log2)
        weights = tl.exp2((scores - higher[:, None]) * scale_log2)
        total = total * shrink + tl.sum(weights, 1)
        v_tile = load_rows(v_base, first + rows, v_n, inside, D, BLOCK_D)
        out = tl.dot(
            weights.to(v_tile.dtype), v_tile, out * shrink[:, None], input_precision=PRECISION
        )
        peak = higher
    part_rows = (tile.to(tl.int64) * H + head) * M
    store_rows(part_out + part_rows * D, m, D, m < marks, out, D, BLOCK_D)
    store_stats(part_stats, part_rows + m, m < marks, peak, total)


@triton.jit(do_not_specialize=["tokens", "num_bags"])
def _landmarks_to_keys_combine_kernel(
    cu_seqlens, tokens, num_bags, part_out, part_stats, values, mark_stats, scale_log2, H, M, D,
    PACKED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    mark_tiles = tl.cdiv(M, BLOCK_M)
    bag = tl.program_id(0) // mark_tiles
    head = tl.program_id(1)
    m = (tl.program_id(0) % mark_tiles) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = bag_size(cu_seqlens, tokens, bag, PACKED)
    inside = m < tl.minimum(n, M)
    first_chunk, chunks = chunks_of(cu_seqlens, tokens, num_bags, bag, PACKED)
    peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    out = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for chunk in range(0, chunks):
        part_rows = ((first_chunk + chunk).to(tl.int64) * H + head) * M
        part_peak, part_total = load_stats(part_stats, part_rows + m, inside)
        part = load_rows(part_out + part_rows * D, m, D, inside, D, BLOCK_D)
        higher = tl.maximum(peak, part_peak)
        shrink = tl.exp2((peak - higher) * scale_log2)
        weight = tl.exp2((part_peak - higher) * scale_log2)
        total = total * shrink + part_total * weight
        out = out * shrink[:, None] + part * weight[:, None]
        peak = higher
    # A short bag has fewer landmarks; the other rows are zero.
    exists = inside & (total > 0)
    out = tl.where(exists[:, None], out / tl.where(exists, total, 1.0)[:, None], 0.0)
    peak = tl.where(exists, peak, 0.0)
    total = tl.where(exists, total, 1.0)
    mark_rows = (bag.to(tl.int64) * H + head) * M
    store_rows(values + mark_rows * D, m, D, m < M, out, D, BLOCK_D)
    store_stats(mark_stats, mark_rows + m, m < M, peak, tl.log2(total))


def landmarks_to_keys_fwd(
    q_marks: Tensor, k: Tensor, v: Tensor, bags: Bags, scale: float, arch: Architecture
) -> tuple[Tensor, Tensor]:
    """W (B, H, M, D), and the statistics of its scores (B, H, M, 2), both fp32."""
    num_bags, h, m, d = q_marks.shape
    chunks = bags.chunks()
    part_out = q_marks.new_empty(chunks, h, m, d, dtype=torch.float32)
    part_stats = q_marks.new_empty(chunks, h, m, 2, dtype=torch.float32)
    values = q_marks.new_empty(num_bags, h, m, d, dtype=torch.float32)
    mark_stats = q_marks.new_empty(num_bags, h, m, 2, dtype=torch.float32)
    config = choose(arch, "reduce", q_marks.dtype, d)
    launch(
        _landmarks_to_keys_fwd_kernel,
        (chunks, triton.cdiv(m, config.landmarks), h),
        config,
        *bags.arguments, q_marks, k, v, part_out, part_stats,
        *k.stride()[:3], *v.stride()[:3], scale * LOG2_E, h, m, d,
        **bags.constants, BLOCK_M=config.landmarks, BLOCK_N=config.tokens,
        BLOCK_D=block_d(d), PRECISION=arch.precision,
    )  # fmt: skip
    launch(
        _landmarks_to_keys_combine_kernel,
        (num_bags * triton.cdiv(m, COMBINE.landmarks), h),
        COMBINE,
        *bags.arguments, part_out, part_stats, values, mark_stats, scale * LOG2_E, h, m, d,
        **bags.constants, BLOCK_M=COMBINE.landmarks, BLOCK_D=block_d(d),
    )  # fmt: skip
    return values, mark_stats


@triton.jit(do_not_specialize=["tokens", "num_bags"])
def _landmarks_to_keys_bwd_marks_kernel(
    cu_seqlens, tokens, num_bags, q_marks, k, v, grad_values, mark_stats, mark_delta, part_grad,
    k_b, k_h, k_n, v_b, v_h, v_n, scale, scale_log2, H, M, D,
    PACKED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One chunk's share of the gradient of Q̃."""
    tile = tl.program_id(0)
    head = tl.program_id(2)
    bag, chunk = locate_chunk(cu_seqlens, tokens, num_bags, tile, PACKED)
    n, first, batch = bag_rows(cu_seqlens, tokens, bag, PACKED)
    length = chunk_size(n)
    if chunk * length >= n:
        return
    m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    marks = tl.minimum(n, M)
    if tl.program_id(1) * BLOCK_M >= marks:
        return
    exists = m < marks
    mark_rows = (bag.to(tl.int64) * H + head) * M
    q_tile = load_rows(q_marks + mark_rows * D, m, D, exists, D, BLOCK_D)
    grad_tile = load_rows(grad_values + mark_rows * D, m, D, exists, D, BLOCK_D)
    peak, log_total = load_stats(mark_stats, mark_rows + m, exists)
    delta = tl.load(mark_delta + mark_rows + m, mask=exists, other=0.0)
    k_base = k + batch.to(tl.int64) * k_b + head.to(tl.int64) * k_h
    v_base = v + batch.to(tl.int64) * v_b + head.to(tl.int64) * v_h
    stop = tl.minimum((chunk + 1) * length, n)
    grad = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for start in range(chunk * length, stop, BLOCK_N):
        rows = start + tl.arange(0, BLOCK_N)
        inside = rows < stop
        k_tile = load_rows(k_base, first + rows, k_n, inside, D, BLOCK_D)
        scores = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION)
        weights = tl.exp2((scores - peak[:, None]) * scale_log2 - log_total[:, None])
        # A score of 0, for a key past the end, could be far above the peak.
        weights = tl.where(inside[None, :], weights, 0.0)
        v_tile = load_rows(v_base, first + rows, v_n, inside, D, BLOCK_D)
        d_weights = tl.dot(grad_tile, tl.trans(v_tile), input_precision=PRECISION)
        d_scores = weights * (d_weights - delta[:, None])
        grad = tl.dot(d_scores.to(k_tile.dtype), k_tile, grad, input_precision=PRECISION)
    part_rows = (tile.to(tl.int64) * H + head) * M
    store_rows(part_grad + part_rows * D, m, D, exists, grad * scale, D, BLOCK_D)


@triton.jit(do_not_specialize=["tokens", "num_bags"])
def _landmarks_to_keys_bwd_rows_kernel(
    cu_seqlens, tokens, num_bags, q_marks, k, v, grad_values, mark_stats, mark_delta, grad_k_marks,
    grad_k, grad_v, k_b, k_h, k_n, v_b, v_h, v_n, dk_b, dk_h, dk_n, dv_b, dv_h, dv_n,
    scale, scale_log2, H, M, D,
    PACKED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of a tile of K and V; K also gets its share of the gradient of K̃."""
    head = tl.program_id(1)
    bag, index = locate(cu_seqlens, tokens, num_bags, tl.program_id(0), BLOCK_N, PACKED)
    n, first, batch = bag_rows(cu_seqlens, tokens, bag, PACKED)
    if index * BLOCK_N >= n:
        return
    rows = index * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = rows < n
    marks = tl.minimum(n, M)
    mark_rows = (bag.to(tl.int64) * H + head) * M
    k_base = k + batch.to(tl.int64) * k_b + head.to(tl.int64) * k_h
    v_base = v + batch.to(tl.int64) * v_b + head.to(tl.int64) * v_h
    k_tile = load_rows(k_base, first + rows, k_n, inside, D, BLOCK_D)
    v_tile = load_rows(v_base, first + rows, v_n, inside, D, BLOCK_D)
    dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for start in range(0, marks, BLOCK_M):
        m = start + tl.arange(0, BLOCK_M)
        exists = m < marks
        q_tile = load_rows(q_marks + mark_rows * D, m, D, exists, D, BLOCK_D)
        grad_tile = load_rows(grad_values + mark_rows * D, m, D, exists, D, BLOCK_D)
        peak, log_total = load_stats(mark_stats, mark_rows + m, exists)
        delta = tl.load(mark_delta + mark_rows + m, mask=exists, other=0.0)
        scores = tl.dot(k_tile, tl.trans(q_tile), input_precision=PRECISION)
        # Landmarks that do not exist have zero rows of Q̃ and of the gradient: they add nothing.
        weights = tl.exp2((scores - peak[None, :]) * scale_log2 - log_total[None, :])
        dv = tl.dot(weights.to(grad_tile.dtype), grad_tile, dv, input_precision=PRECISION)
        d_weights = tl.dot(v_tile, tl.trans(grad_tile), input_precision=PRECISION)
        d_scores = weights * (d_weights - delta[None, :])
        dk = tl.dot(d_scores.to(q_tile.dtype), q_tile, dk, input_precision=PRECISION)
    dk *= scale
    if n > M:
        dk += segment_share(grad_k_marks + mark_rows * D, rows, inside, n, M, D, BLOCK_D)
    dk_base = grad_k + batch.to(tl.int64) * dk_b + head.to(tl.int64) * dk_h
    dv_base = grad_v + batch.to(tl.int64) * dv_b + head.to(tl.int64) * dv_h
    store_rows(dk_base, first + rows, dk_n, inside, dk, D, BLOCK_D)
    store_rows(dv_base, first + rows, dv_n, inside, dv, D, BLOCK_D)


@triton.jit
def segment_share(grad_marks, rows, inside, n, M, D, BLOCK_D: tl.constexpr):
    """Each row's share of its landmark's gradient: the gradient ÷ the segment's length."""
    wide = rows.to(tl.int64)
    size = n.to(tl.int64)
    segment = ((wide + 1) * M - 1) // size
    length = ((segment + 1) * size) // M - (segment * size) // M
    share = load_rows(grad_marks, segment, D, inside, D, BLOCK_D)
    return share / tl.maximum(length, 1).to(tl.float32)[:, None]


def landmarks_to_keys_bwd_marks(
    q_marks: Tensor, k: Tensor, v: Tensor, grad_values: Tensor, mark_stats: Tensor,
    mark_delta: Tensor, bags: Bags, scale: float, arch: Architecture,
) -> Tensor:  # fmt: skip
    """Gradient of Q̃ by chunks of keys, (chunks, H, M, D) fp32, to be summed in order.

    Args:
        grad_values: gradient of W (B, H, M, D) in the dtype of q.
        mark_delta: (B, H, M) fp32, row sums of W times its gradient.
    """
    _, h, m, d = q_marks.shape
    chunks = bags.chunks()
    part_grad = q_marks.new_empty(chunks, h, m, d, dtype=torch.float32)
    config = choose(arch, "reduce_bwd", q_marks.dtype, d)
    launch(
        _landmarks_to_keys_bwd_marks_kernel,
        (chunks, triton.cdiv(m, config.landmarks), h),
        config,
        *bags.arguments, q_marks, k, v, grad_values, mark_stats, mark_delta, part_grad,
        *k.stride()[:3], *v.stride()[:3], scale, scale * LOG2_E, h, m, d,
        **bags.constants, BLOCK_M=config.landmarks, BLOCK_N=config.tokens,
        BLOCK_D=block_d(d), PRECISION=arch.precision,
    )  # fmt: skip
    return part_grad


def landmarks_to_keys_bwd_rows(
    q_marks: Tensor, k: Tensor, v: Tensor, grad_values: Tensor, mark_stats: Tensor,
    mark_delta: Tensor, grad_k_marks: Tensor, grad_k: Tensor, grad_v: Tensor, bags: Bags,
    scale: float, arch: Architecture,
) -> None:  # fmt: skip
    """Fill ``grad_k`` and ``grad_v``, the landmarks' share of K (gradient of K̃, fp32) included."""
    _, h, m, d = q_marks.shape
    config = choose(arch, "rows_bwd", q_marks.dtype, d)
    launch(
        _landmarks_to_keys_bwd_rows_kernel,
        (bags.tiles(config.tokens), h),
        config,
        *bags.arguments, q_marks, k, v, grad_values, mark_stats, mark_delta, grad_k_marks,
        grad_k, grad_v, *k.stride()[:3], *v.stride()[:3],
        *grad_k.stride()[:3], *grad_v.stride()[:3], scale, scale * LOG2_E, h, m, d,
        **bags.constants, BLOCK_M=config.landmarks, BLOCK_N=config.tokens,
        BLOCK_D=block_d(d), PRECISION=arch.precision,
    )  # fmt: skip
