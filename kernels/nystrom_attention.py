"""Nyström attention on a GPU: the launches of the forward and the backward pass, in order."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from gimp_fast.kernels.bags import Bags, bag_rows, bag_size, load_rows, store_rows
from gimp_fast.kernels.landmark_scores import landmark_scores_bwd, landmark_scores_fwd
from gimp_fast.kernels.landmarks import block_d, landmarks_fwd, landmarks_of
from gimp_fast.kernels.landmarks_to_keys import COMBINE, landmarks_to_keys_fwd
from gimp_fast.kernels.landmarks_to_keys_grads import landmarks_to_keys_bwd
from gimp_fast.kernels.launch import Architecture, architecture, inverse_precision, launch
from gimp_fast.kernels.pinv import pinv_matmul_bwd, pinv_matmul_fwd
from gimp_fast.kernels.queries_to_landmarks import queries_to_landmarks_fwd
from gimp_fast.kernels.queries_to_landmarks_grads import queries_bwd, queries_to_landmarks_bwd


def nystrom_attention_fwd(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None, num_landmarks: int,
    pinv_iterations: int, scale: float, arch: Architecture | None = None,
    q_marks: Tensor | None = None, q_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Output, and what the backward pass needs besides q, k and v.

    Args:
        q, k, v: (B, H, N, D) fp32, bf16 or fp16, unit stride along D; packed (1, H, T, D).
        cu_seqlens: (B + 1,) int32 on the device, of packed bags.
        q_marks: (B, H, M, D), the landmarks Q̃ of all tokens of packed bags, if q has only some of
            them, (1, H, R, D). Bags of N ≤ M tokens do not read them.
        q_seqlens: (B + 1,) int32 on the device, bounds of the bags in that q.

    Returns:
        out like q; Q̃, K̃ (B, H, M′, D) in its dtype; statistics (B, H, M′, 2) of the scores of W;
        W (B, H, M′, D) fp32; Y = Z W in the dtype of q; statistics of the rows (B, H, N, 2) or
        (1, H, T, 2). M′ is M, in a batch of N < M tokens a bag it is N.
    """
    arch = architecture(q.device) if arch is None else arch
    bags = q_bags = _bags(k, cu_seqlens)
    marks = num_landmarks if bags.packed else min(num_landmarks, bags.tokens)
    if q_marks is None:
        q_marks, k_marks = landmarks_fwd(q, k, bags, marks)
    else:
        q_bags, k_marks = _bags(q, q_seqlens), landmarks_of(k, bags, marks)
        # The landmarks of a short bag are its queries.
        q_marks = torch.where(_is_long(bags, marks), q_marks, landmarks_of(q, q_bags, marks))
    values, mark_stats = landmarks_to_keys_fwd(q_marks, k, v, bags, num_landmarks, scale, arch)
    mixed = torch.zeros_like(q_marks)
    if _any_long(bags, marks):
        scores = landmark_scores_fwd(q_marks, k_marks, bags, scale, arch)
        precision = inverse_precision(arch, q.dtype, pinv_iterations)
        long = pinv_matmul_fwd(scores, values, pinv_iterations, bags, arch, precision)
        _to_dtype(long, mixed, bags)
    out, row_stats = queries_to_landmarks_fwd(
        q, k_marks, mixed, values, q_bags, bags, num_landmarks, scale, arch
    )
    return out, q_marks, k_marks, mark_stats, values, mixed, row_stats


def nystrom_attention_bwd(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None, q_marks: Tensor,
    k_marks: Tensor, mark_stats: Tensor, values: Tensor, mixed: Tensor, row_stats: Tensor,
    pinv_iterations: int, scale: float, arch: Architecture | None = None,
    q_seqlens: Tensor | None = None, num_landmarks: int | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients of q, k and v; in memory all heads of a token lie together.

    With ``q_seqlens``, q has only some of the tokens, and the gradient of Q̃ follows as the fourth.
    ``num_landmarks`` is that of the forward pass; it may be left out if no bag has fewer tokens.
    """
    arch = architecture(q.device) if arch is None else arch
    bags = _bags(k, cu_seqlens)
    q_bags = bags if q_seqlens is None else _bags(q, q_seqlens)
    marks = q_marks.shape[2]
    num_landmarks = num_landmarks or marks
    rows = (q, k_marks, mixed, grad, row_stats)
    # What bags of N ≤ M tokens have instead of these is not read.
    grad_w, grad_k_marks, grad_q_marks = values, values, torch.empty_like(values)
    grad_q = row_delta = None
    if _any_long(bags, marks):
        (grad_y, grad_k_marks), grad_q, row_delta = queries_to_landmarks_bwd(
            *rows, q_bags, bags, num_landmarks, scale, arch
        )
        scores = landmark_scores_fwd(q_marks, k_marks, bags, scale, arch)
        precision = inverse_precision(arch, q.dtype, pinv_iterations)
        grad_scores, grad_w = pinv_matmul_bwd(
            grad_y, scores, values, pinv_iterations, bags, arch, precision
        )
        grad_q_marks = landmark_scores_bwd(
            q_marks, k_marks, scores, grad_scores, grad_k_marks, bags, scale, arch
        )
        del scores, grad_scores
    grad_values, mark_delta = _values_gradient(grad_w, grad, values, q_bags, bags)
    del grad_w
    grad_k, grad_v = landmarks_to_keys_bwd(
        q_marks, k, v, grad_values, mark_stats, mark_delta, grad_q_marks, grad_k_marks, bags,
        num_landmarks, scale, arch,
    )  # fmt: skip
    grad_q = queries_bwd(
        grad_q, row_delta, *rows, grad_q_marks, q_bags, bags, q_seqlens is None, scale, arch
    )
    if q_seqlens is None:
        return grad_q, grad_k, grad_v
    grad_q_marks = torch.where(_is_long(bags, marks), grad_q_marks, 0)
    return grad_q, grad_k, grad_v, grad_q_marks.to(q.dtype)


def _bags(q: Tensor, cu_seqlens: Tensor | None) -> Bags:
    if cu_seqlens is None:
        return Bags(q.shape[0], q.shape[2], None)
    return Bags(len(cu_seqlens) - 1, q.shape[2], cu_seqlens)


def _any_long(bags: Bags, marks: int) -> bool:
    """Whether a bag may have more tokens than landmarks, and needs the pseudo-inverse."""
    return bags.tokens > marks


def _is_long(bags: Bags, marks: int) -> Tensor:
    """(B, 1, 1, 1) bool: the packed bags of more than M tokens."""
    return (bags.cu_seqlens.diff() > marks)[:, None, None, None]


@triton.jit(do_not_specialize=["tokens", "num_bags"])
def _to_dtype_kernel(
    cu_seqlens, tokens, num_bags, x, y, H, M, D,
    PACKED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    mark_tiles = tl.cdiv(M, BLOCK_M)
    bag = tl.program_id(0) // mark_tiles
    m = (tl.program_id(0) % mark_tiles) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = bag_size(cu_seqlens, tokens, bag, PACKED)
    if n <= M:
        return
    start = (bag.to(tl.int64) * H + tl.program_id(1)) * M * D
    store_rows(y + start, m, D, m < M, load_rows(x + start, m, D, m < M, D, BLOCK_D), D, BLOCK_D)


def _to_dtype(x: Tensor, y: Tensor, bags: Bags) -> None:
    """Copy the rows of bags of more than M tokens; those of other bags in x were never written."""
    num_bags, h, m, d = x.shape
    launch(
        _to_dtype_kernel,
        (num_bags * triton.cdiv(m, COMBINE.landmarks), h),
        COMBINE,
        *bags.arguments, x, y, h, m, d,
        **bags.constants, BLOCK_M=COMBINE.landmarks, BLOCK_D=block_d(d),
    )  # fmt: skip


@triton.jit(do_not_specialize=["tokens", "num_bags", "key_tokens"])
def _values_gradient_kernel(
    cu_seqlens, tokens, num_bags, key_seqlens, key_tokens,
    grad_w, grad_out, values, grad_values, mark_delta,
    g_b, g_h, g_n, H, M, D,
    PACKED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    mark_tiles = tl.cdiv(M, BLOCK_M)
    bag = tl.program_id(0) // mark_tiles
    head = tl.program_id(1)
    m = (tl.program_id(0) % mark_tiles) * BLOCK_M + tl.arange(0, BLOCK_M)
    count, first, batch = bag_rows(cu_seqlens, tokens, bag, PACKED)
    n = bag_size(key_seqlens, key_tokens, bag, PACKED)
    mark_rows = (bag.to(tl.int64) * H + head) * M
    long = load_rows(grad_w + mark_rows * D, m, D, (m < M) & (n > M), D, BLOCK_D)
    g_base = grad_out + batch.to(tl.int64) * g_b + head.to(tl.int64) * g_h
    short = load_rows(g_base, first + m, g_n, (m < count) & (n <= M), D, BLOCK_D)
    # Rounded before the row sums, as the kernels will read it.
    grad = (long + short.to(tl.float32)).to(grad_values.dtype.element_ty)
    w = load_rows(values + mark_rows * D, m, D, m < M, D, BLOCK_D)
    store_rows(grad_values + mark_rows * D, m, D, m < M, grad, D, BLOCK_D)
    tl.store(mark_delta + mark_rows + m, tl.sum(grad.to(tl.float32) * w, 1), mask=m < M)


def _values_gradient(
    grad_w: Tensor, grad_out: Tensor, values: Tensor, bags: Bags, keys: Bags
) -> tuple[Tensor, Tensor]:
    """Gradient of W in the dtype of q, and the row sums of W times it.

    For bags of N ≤ M tokens W is the output, and has its gradient. ``bags`` are those of the
    output, ``keys`` those of all tokens.
    """
    num_bags, h, m, d = values.shape
    grad_values = grad_out.new_empty(values.shape)
    mark_delta = values.new_empty(num_bags, h, m)
    launch(
        _values_gradient_kernel,
        (num_bags * triton.cdiv(m, COMBINE.landmarks), h),
        COMBINE,
        *bags.arguments, *keys.whole,
        grad_w, grad_out, values, grad_values, mark_delta,
        *grad_out.stride()[:3], h, m, d,
        **bags.constants, BLOCK_M=COMBINE.landmarks, BLOCK_D=block_d(d),
    )  # fmt: skip
    return grad_values, mark_delta
