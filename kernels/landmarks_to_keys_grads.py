"""Gradients of W = softmax(Q̃ Kᵀ) V.

Where all landmarks of a head fit into one program, a kernel gives all of them. Elsewhere one sums
the gradient of Q̃ chunk by chunk, and one gives tiles of K and V theirs.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from gimp_fast.kernels.all_landmarks_grads import landmarks_to_keys_all_bwd
from gimp_fast.kernels.bags import (
    Bags,
    bag_rows,
    chunk_size,
    load_rows,
    load_stats,
    locate,
    locate_chunk,
    store_rows,
    token_major,
)
from gimp_fast.kernels.chunk_sums import sum_chunks
from gimp_fast.kernels.landmarks import block_d, segment_share
from gimp_fast.kernels.landmarks_to_keys import LOG2_E
from gimp_fast.kernels.launch import Architecture, choose, choose_all, launch


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


def landmarks_to_keys_bwd(
    q_marks: Tensor, k: Tensor, v: Tensor, grad_values: Tensor, mark_stats: Tensor,
    mark_delta: Tensor, grad_q_marks: Tensor, grad_k_marks: Tensor, bags: Bags,
    num_landmarks: int, scale: float, arch: Architecture,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of K, the landmarks' share included, and V; that of Q̃ is added in place.

    Args:
        grad_values: gradient of W (B, H, M, D) in the dtype of q.
        mark_delta: (B, H, M) fp32, row sums of W times its gradient.
        grad_q_marks: (B, H, M, D) fp32, what the queries and the pseudo-inverse gave to Q̃.
        grad_k_marks: gradient of K̃ (B, H, M, D) fp32.
        num_landmarks: more than the M of q_marks in a batch of shorter bags.
    """
    operands = (q_marks, k, v, grad_values, mark_stats, mark_delta)
    config = choose_all(arch, "all_reduce_bwd", k.dtype, k.shape[3], num_landmarks)
    # In the tiled way the parts are summed, and free, before gradients of all tokens are allocated.
    if config is None:
        parts = _bwd_marks(*operands, bags, scale, arch)
        sum_chunks(parts, bags, bags, onto=grad_q_marks[None])
        del parts
    grad_k, grad_v = map(token_major, (k, v))
    if config is None:
        _bwd_rows(*operands, grad_k_marks, grad_k, grad_v, bags, scale, arch)
    else:
        parts = landmarks_to_keys_all_bwd(
            *operands, grad_k_marks, grad_k, grad_v, bags, scale, arch, config
        )
        sum_chunks(parts, bags, bags, onto=grad_q_marks[None])
    return grad_k, grad_v


def _bwd_marks(
    q_marks: Tensor, k: Tensor, v: Tensor, grad_values: Tensor, mark_stats: Tensor,
    mark_delta: Tensor, bags: Bags, scale: float, arch: Architecture,
) -> Tensor:  # fmt: skip
    """Gradient of Q̃ by chunks of keys, (1, chunks, H, M, D) fp32."""
    _, h, m, d = q_marks.shape
    chunks = bags.chunks()
    parts = q_marks.new_empty(1, chunks, h, m, d, dtype=torch.float32)
    config = choose(arch, "reduce_bwd", q_marks.dtype, d)
    launch(
        _landmarks_to_keys_bwd_marks_kernel,
        (chunks, triton.cdiv(m, config.landmarks), h),
        config,
        *bags.arguments, q_marks, k, v, grad_values, mark_stats, mark_delta, parts,
        *k.stride()[:3], *v.stride()[:3], scale, scale * LOG2_E, h, m, d,
        **bags.constants, BLOCK_M=config.landmarks, BLOCK_N=config.tokens,
        BLOCK_D=block_d(d), PRECISION=arch.precision,
    )  # fmt: skip
    return parts


def _bwd_rows(
    q_marks: Tensor, k: Tensor, v: Tensor, grad_values: Tensor, mark_stats: Tensor,
    mark_delta: Tensor, grad_k_marks: Tensor, grad_k: Tensor, grad_v: Tensor, bags: Bags,
    scale: float, arch: Architecture,
) -> None:  # fmt: skip
    """Fill ``grad_k`` and ``grad_v``."""
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
