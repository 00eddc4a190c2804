"""W = softmax(Q̃ Kᵀ) V: M landmarks attend to all keys of their bag, split over the keys.

Each program folds one chunk of keys into a tile of landmarks, as flash attention does; a second
kernel combines the chunks in order. Where all landmarks fit into one tile, K and V are read once.

The backward pass recomputes the weights from two statistics of each row, its largest score and the
base-2 logarithm of its sum, which are stored apart so that neither rounds the other away. A bag of
N ≤ M tokens has its own tokens as landmarks, and W is its exact softmax attention.
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
    locate_chunk,
    store_rows,
    store_stats,
)
from gimp_fast.kernels.landmarks import block_d
from gimp_fast.kernels.launch import Architecture, Config, choose, choose_all, launch

LOG2_E = 1.4426950408889634
COMBINE = Config(tokens=1, landmarks=16, num_warps=4, num_stages=2)


@triton.jit(do_not_specialize=["tokens", "num_bags"])
def _landmarks_to_keys_fwd_kernel(
    cu_seqlens, tokens, num_bags, q_marks, k, v, part_out, part_stats,
    k_b, k_h, k_n, v_b, v_h, v_n, scale_log2, H, M,
    D: tl.constexpr, PACKED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
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
    # The parts are read long before they are used: nothing else hides the time that this takes.
    for chunk in tl.range(0, chunks, num_stages=4):
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
    q_marks: Tensor, k: Tensor, v: Tensor, bags: Bags, num_landmarks: int, scale: float,
    arch: Architecture,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """W (B, H, M, D), and the statistics of its scores (B, H, M, 2), both fp32.

    Args:
        num_landmarks: more than the M of q_marks in a batch of shorter bags.
    """
    num_bags, h, m, d = q_marks.shape
    chunks = bags.chunks()
    part_out = q_marks.new_empty(chunks, h, m, d, dtype=torch.float32)
    part_stats = q_marks.new_empty(chunks, h, m, 2, dtype=torch.float32)
    values = q_marks.new_empty(num_bags, h, m, d, dtype=torch.float32)
    mark_stats = q_marks.new_empty(num_bags, h, m, 2, dtype=torch.float32)
    config = choose_all(arch, "all_reduce", q_marks.dtype, d, num_landmarks)
    config = config or choose(arch, "reduce", q_marks.dtype, d)
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
