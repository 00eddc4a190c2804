"""A = softmax(Q̃ K̃ᵀ), the M×M matrix whose pseudo-inverse the attention needs; fp32.

Bags of N ≤ M tokens do not need it: packed, they have none (``gimp_fast.kernels.long_bags``).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from gimp_fast.kernels.bags import Bags, bag_size, load_rows, store_rows
from gimp_fast.kernels.landmarks import block_d
from gimp_fast.kernels.landmarks_to_keys import LOG2_E
from gimp_fast.kernels.launch import Architecture, Config, launch
from gimp_fast.kernels.long_bags import matrix_slot, matrix_slots

NARROW = Config(tokens=32, landmarks=32, num_warps=4, num_stages=2)
WIDE = Config(tokens=16, landmarks=32, num_warps=8, num_stages=1)


@triton.jit(do_not_specialize=["tokens", "num_bags"])
def _landmark_scores_fwd_kernel(
    cu_seqlens, tokens, num_bags, q_marks, k_marks, scores_out, scale_log2, H, M, D,
    PACKED: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    row_tiles = tl.cdiv(M, BLOCK_R)
    bag = tl.program_id(0) // row_tiles
    head = tl.program_id(1)
    n = bag_size(cu_seqlens, tokens, bag, PACKED)
    if n <= M:
        return
    r = (tl.program_id(0) % row_tiles) * BLOCK_R + tl.arange(0, BLOCK_R)
    mark_rows = (bag.to(tl.int64) * H + head) * M
    slot = matrix_slot(cu_seqlens, tokens, num_bags, bag, M, PACKED)
    rows = (slot.to(tl.int64) * H + head) * M
    q_tile = load_rows(q_marks + mark_rows * D, r, D, r < M, D, BLOCK_D)
    peak = tl.full([BLOCK_R], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_R], tl.float32)
    for start in range(0, M, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        k_tile = load_rows(k_marks + mark_rows * D, c, D, c < M, D, BLOCK_D)
        scores = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION)
        scores = tl.where((c < M)[None, :], scores, float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, 1))
        total = total * tl.exp2((peak - higher) * scale_log2)
        total += tl.sum(tl.exp2((scores - higher[:, None]) * scale_log2), 1)
        peak = higher
    for start in range(0, M, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        k_tile = load_rows(k_marks + mark_rows * D, c, D, c < M, D, BLOCK_D)
        scores = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION)
        weights = tl.exp2((scores - peak[:, None]) * scale_log2) / total[:, None]
        pointers = scores_out + (rows + r)[:, None] * M + c[None, :]
        tl.store(pointers, weights, mask=(r < M)[:, None] & (c < M)[None, :])


@triton.jit(do_not_specialize=["tokens", "num_bags"])
def _landmark_scores_bwd_rows_kernel(
    cu_seqlens, tokens, num_bags, k_marks, a, grad_a, delta_out, grad_q_marks, scale, H, M, D,
    PACKED: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Row sums of A ∘ dA, and the gradient of Q̃."""
    row_tiles = tl.cdiv(M, BLOCK_R)
    bag = tl.program_id(0) // row_tiles
    head = tl.program_id(1)
    n = bag_size(cu_seqlens, tokens, bag, PACKED)
    if n <= M:
        return
    r = (tl.program_id(0) % row_tiles) * BLOCK_R + tl.arange(0, BLOCK_R)
    mark_rows = (bag.to(tl.int64) * H + head) * M
    slot = matrix_slot(cu_seqlens, tokens, num_bags, bag, M, PACKED)
    rows = (slot.to(tl.int64) * H + head) * M
    delta = tl.zeros([BLOCK_R], tl.float32)
    for start in range(0, M, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        offsets = (rows + r)[:, None] * M + c[None, :]
        inside = (r < M)[:, None] & (c < M)[None, :]
        weights = tl.load(a + offsets, mask=inside, other=0.0)
        delta += tl.sum(weights * tl.load(grad_a + offsets, mask=inside, other=0.0), 1)
    grad = tl.zeros([BLOCK_R, BLOCK_D], tl.float32)
    for start in range(0, M, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        offsets = (rows + r)[:, None] * M + c[None, :]
        inside = (r < M)[:, None] & (c < M)[None, :]
        weights = tl.load(a + offsets, mask=inside, other=0.0)
        d_weights = tl.load(grad_a + offsets, mask=inside, other=0.0)
        d_scores = weights * (d_weights - delta[:, None])
        k_tile = load_rows(k_marks + mark_rows * D, c, D, c < M, D, BLOCK_D).to(tl.float32)
        grad = tl.dot(d_scores, k_tile, grad, input_precision=PRECISION)
    tl.store(delta_out + mark_rows + r, delta, mask=r < M)
    store_rows(grad_q_marks + mark_rows * D, r, D, r < M, grad * scale, D, BLOCK_D)


@triton.jit(do_not_specialize=["tokens", "num_bags"])
def _landmark_scores_bwd_columns_kernel(
    cu_seqlens, tokens, num_bags, q_marks, a, grad_a, delta_in, grad_k_marks, scale, H, M, D,
    PACKED: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add the scores' share to the gradient of K̃."""
    column_tiles = tl.cdiv(M, BLOCK_C)
    bag = tl.program_id(0) // column_tiles
    head = tl.program_id(1)
    n = bag_size(cu_seqlens, tokens, bag, PACKED)
    if n <= M:
        return
    c = (tl.program_id(0) % column_tiles) * BLOCK_C + tl.arange(0, BLOCK_C)
    mark_rows = (bag.to(tl.int64) * H + head) * M
    slot = matrix_slot(cu_seqlens, tokens, num_bags, bag, M, PACKED)
    rows = (slot.to(tl.int64) * H + head) * M
    grad = tl.zeros([BLOCK_C, BLOCK_D], tl.float32)
    for start in range(0, M, BLOCK_R):
        r = start + tl.arange(0, BLOCK_R)
        offsets = (rows + r)[:, None] * M + c[None, :]
        inside = (r < M)[:, None] & (c < M)[None, :]
        weights = tl.load(a + offsets, mask=inside, other=0.0)
        d_weights = tl.load(grad_a + offsets, mask=inside, other=0.0)
        delta = tl.load(delta_in + mark_rows + r, mask=r < M, other=0.0)
        d_scores = weights * (d_weights - delta[:, None])
        q_tile = load_rows(q_marks + mark_rows * D, r, D, r < M, D, BLOCK_D).to(tl.float32)
        grad = tl.dot(tl.trans(d_scores), q_tile, grad, input_precision=PRECISION)
    base = grad_k_marks + mark_rows * D
    grad = load_rows(base, c, D, c < M, D, BLOCK_D) + grad * scale
    store_rows(base, c, D, c < M, grad, D, BLOCK_D)


def landmark_scores_fwd(
    q_marks: Tensor, k_marks: Tensor, bags: Bags, scale: float, arch: Architecture
) -> Tensor:
    """A (slots, H, M, M) fp32 of landmarks (B, H, M, D)."""
    num_bags, h, m, d = q_marks.shape
    scores = q_marks.new_empty(matrix_slots(bags, m), h, m, m, dtype=torch.float32)
    config = _config(d)
    launch(
        _landmark_scores_fwd_kernel,
        (num_bags * triton.cdiv(m, config.tokens), h),
        config,
        *bags.arguments, q_marks, k_marks, scores, scale * LOG2_E, h, m, d,
        **bags.constants, **_blocks(d, arch),
    )  # fmt: skip
    return scores


def landmark_scores_bwd(
    q_marks: Tensor, k_marks: Tensor, a: Tensor, grad_a: Tensor, grad_k_marks: Tensor,
    bags: Bags, scale: float, arch: Architecture,
) -> Tensor:  # fmt: skip
    """Gradient of Q̃ (B, H, M, D) fp32; that of K̃ is added to ``grad_k_marks`` in place."""
    num_bags, h, m, d = q_marks.shape
    grad_q_marks = q_marks.new_empty(q_marks.shape, dtype=torch.float32)
    delta = q_marks.new_empty(num_bags, h, m, dtype=torch.float32)
    config = _config(d)
    constants = bags.constants | _blocks(d, arch)
    launch(
        _landmark_scores_bwd_rows_kernel,
        (num_bags * triton.cdiv(m, config.tokens), h),
        config,
        *bags.arguments, k_marks, a, grad_a, delta, grad_q_marks, scale, h, m, d,
        **constants,
    )  # fmt: skip
    launch(
        _landmark_scores_bwd_columns_kernel,
        (num_bags * triton.cdiv(m, config.landmarks), h),
        config,
        *bags.arguments, q_marks, a, grad_a, delta, grad_k_marks, scale, h, m, d,
        **constants,
    )  # fmt: skip
    return grad_q_marks


def _config(head_dim: int) -> Config:
    return NARROW if head_dim <= 64 else WIDE


def _blocks(head_dim: int, arch: Architecture) -> dict[str, int | str]:
    config = _config(head_dim)
    return {
        "BLOCK_R": config.tokens,
        "BLOCK_C": config.landmarks,
        "BLOCK_D": block_d(head_dim),
        "PRECISION": arch.precision,
    }
