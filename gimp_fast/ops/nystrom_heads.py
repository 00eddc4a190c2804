"""The products of Nyström attention for some heads of one bag, a chunk of its tokens at a time.

Chunks start at the first token of the bag and are summed in order. Their scores are the only ones
in memory; the backward pass computes them again.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gimp_fast.ops.pinv import pinv_matmul_bwd, pinv_matmul_fwd
from gimp_fast.ops.products import chunks, precise_product, product

# So many tokens have their scores against all landmarks in memory at a time. For one head, these
# scores fit the cache of a CPU core.
CHUNK = 1024
# Scores of the keys are multiplied by this, because exp2 is the fastest exponential on CPUs.
LOG2E = math.log2(math.e)


def heads_fwd(
    inputs: list[Tensor],
    q_marks: Tensor,
    k_marks: Tensor,
    pinv_iterations: int,
    scale: float,
    outputs: list[Tensor],
) -> None:
    """Write the output, and what the backward pass needs."""
    q, k, v = inputs  # (G, N, D), G heads of one bag; of needed rows, q (G, R, D)
    mark_lse, values, mixed, out = outputs  # (G, M), (G, M, D) twice, (G, N, D)
    q_scaled = q_marks.to(values.dtype) * scale
    k_side = k_marks.to(values.dtype)
    _to_keys_fwd(q_scaled * LOG2E, k, v, values, mark_lse)
    scores = product(q_scaled, k_side).softmax(-1)  # (G, M, M)
    mixed.copy_(pinv_matmul_fwd(scores, values, pinv_iterations))
    k_scaled, mixed_t = k_side * scale, mixed.mT.contiguous()
    for part in chunks(q.shape[1], CHUNK):
        attention = product(q[:, part].to(values.dtype), k_scaled).softmax(-1)  # (G, c, M)
        out[:, part] = precise_product(attention, mixed_t)


def _to_keys_fwd(q_scaled: Tensor, k: Tensor, v: Tensor, values: Tensor, mark_lse: Tensor) -> None:
    """Write W = softmax(Q̃ Kᵀ) V into values, and log₂ Σ exp of its scores into mark_lse.

    Each chunk of keys has its own softmax, without the division. They are weighted at the end.
    """
    peaks, sums, parts = [], [], []
    for part in chunks(k.shape[1], CHUNK):
        scores = product(k[:, part].to(values.dtype), q_scaled)  # (G, c, M)
        peaks.append(scores.amax(1, keepdim=True))  # (G, 1, M)
        weights = scores.sub_(peaks[-1]).exp2_()
        sums.append(weights.sum(1, keepdim=True))
        parts.append(product(v[:, part].to(values.dtype).mT, weights.mT))  # (G, D, M)
    all_peaks = torch.stack(peaks)
    peak = all_peaks.amax(0)
    shares = (all_peaks - peak).exp2_()
    total = (torch.stack(sums) * shares).sum(0)
    values.copy_((torch.stack(parts).mul_(shares).sum(0) / total).mT)
    mark_lse.copy_((peak + total.log2())[:, 0])


def heads_bwd(
    inputs: list[Tensor],
    saved: list[Tensor],
    pinv_iterations: int,
    scale: float,
    segment: Tensor,
    lengths: Tensor,
    outputs: list[Tensor],
) -> None:
    """Write the gradients of q, k and v; and that of the landmarks of q, if it is wanted apart."""
    grad, q, k, v = inputs  # (G, N, D), G heads of one bag; of needed rows, grad and q (G, R, D)
    q_marks, k_marks, mark_lse, values, mixed = saved
    grad_q, grad_k, grad_v, *grad_given = outputs
    q_side, k_side = (x.to(values.dtype) for x in (q_marks, k_marks))  # (G, M, D)
    grad_mixed, grad_k_marks = _from_queries_bwd(grad, q, k_side * scale, mixed, grad_q)
    scores = product(q_side * scale, k_side).softmax(-1)  # (G, M, M)
    grad_scores, grad_values = pinv_matmul_bwd(
        grad_mixed.mT.contiguous(), scores, values, pinv_iterations
    )
    grad_scores = softmax_bwd(grad_scores.contiguous(), scores)
    grad_k_marks = product(q_side.mT, grad_scores.mT, grad_k_marks)  # (G, D, M)
    grad_q_marks = product(k_side.mT, grad_scores)
    shares = (grad_k_marks * scale / lengths).mT.contiguous()  # (G, M, D)
    q_scaled = q_side * scale
    q_exponent, minus_lse = q_scaled * LOG2E, -mark_lse[:, None]
    minus_delta = -(grad_values * values).sum(-1)[:, None]  # (G, 1, M)
    for part in chunks(k.shape[1], CHUNK):
        keys, rows = (x[:, part].to(values.dtype) for x in (k, v))  # (G, c, D)
        attention = product(keys, q_exponent, minus_lse).exp2_()  # (G, c, M)
        grad_v[:, part] = precise_product(attention, grad_values.mT)
        grad_scores = product(rows, grad_values, minus_delta).mul_(attention)
        grad_k[:, part] = product(grad_scores, q_scaled.mT, shares[:, segment[part]])
        grad_q_marks = product(keys.mT, grad_scores.mT, grad_q_marks)
    if grad_given:
        grad_given[0].copy_((grad_q_marks * scale).mT)
        return
    shares = (grad_q_marks * scale / lengths).mT.contiguous()
    for part in chunks(q.shape[1], CHUNK):
        grad_q[:, part] += shares[:, segment[part]]


def _from_queries_bwd(
    grad: Tensor, q: Tensor, k_scaled: Tensor, mixed: Tensor, grad_q: Tensor
) -> tuple[Tensor, Tensor]:
    """Write the gradient of q; return those of Y and of K̃ (G, D, M), the latter without scale."""
    grad_mixed = grad_k_marks = None
    k_scaled_t = k_scaled.mT.contiguous()
    for part in chunks(q.shape[1], CHUNK):
        queries, grads = (x[:, part].to(mixed.dtype) for x in (q, grad))  # (G, c, D)
        attention = product(queries, k_scaled).softmax(-1)  # (G, c, M)
        grad_mixed = product(grads.mT, attention.mT, grad_mixed)
        grad_scores = softmax_bwd(product(grads, mixed), attention)
        grad_q[:, part] = product(grad_scores, k_scaled_t)
        grad_k_marks = product(queries.mT, grad_scores.mT, grad_k_marks)
    return grad_mixed, grad_k_marks


def softmax_bwd(grad: Tensor, softmax: Tensor) -> Tensor:
    return torch.ops.aten._softmax_backward_data(grad, softmax, -1, softmax.dtype)
