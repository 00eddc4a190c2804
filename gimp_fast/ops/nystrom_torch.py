"""Nyström attention by torch's own matrix products, a bag and a chunk of its tokens at a time.

No N×M matrix exists: the scores of one chunk do, which stay in the cache. The backward pass
recomputes them. Chunks are cut from the bag's own first token and added up in order, so the result
of a bag does not depend on the bags around it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gimp_fast.ops.pinv import pinv_matmul_bwd, pinv_matmul_fwd

# Tokens whose scores against all landmarks exist at a time.
CHUNK = 512


def nystrom_fwd(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bounds: list[tuple[int, int]] | None,
    num_landmarks: int,
    pinv_iterations: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Output, and what the backward pass needs besides q, k and v.

    Args:
        q, k, v: (B, H, N, D) of one dtype, any strides; with ``bounds`` (1, H, T, D).
        bounds: first and last-plus-one token of every packed bag.

    Returns:
        out like q, in memory (B, N, H, D); Q̃, K̃ (bags, H, M′, D) in the dtype of q; log-sum-exp of
        the landmarks' scores (bags, H, M′), W = softmax(Q̃ Kᵀ)V and Y = Z W (bags, H, M′, D), fp64
        for fp64, else fp32; and (B, 0), since nothing of the rows is kept. M′ is M for packed bags,
        min(M, N) in a batch. Of a bag of N ≤ M tokens W has the rows of its output, and the rest is
        zero.
    """
    batch, h, n, d = q.shape
    bags = _bags(q, bounds)
    marks = min(num_landmarks, n) if bounds is None else num_landmarks
    out = _token_major(q)
    q_marks, k_marks = (q.new_zeros(len(bags), h, marks, d) for _ in range(2))
    values, mixed = (
        torch.zeros_like(q_marks, dtype=_compute_dtype(q)) for _ in range(2)
    )  # (bags, H, M′, D)
    mark_lse = values.new_zeros(len(bags), h, marks)
    for bag, (place, start, stop) in enumerate(bags):
        part = (place, slice(None), slice(start, stop))
        if stop - start <= num_landmarks:
            values[bag, :, : stop - start] = _exact_fwd(q[part], k[part], v[part], scale)
            out[part] = values[bag, :, : stop - start]
            continue
        q_marks[bag] = _landmarks(q[part], marks)
        k_marks[bag] = _landmarks(k[part], marks)
        q_side, k_side = (x[bag].to(values.dtype) for x in (q_marks, k_marks))  # (H, M, D)
        _to_keys_fwd(q_side * scale, k[part], v[part], values[bag], mark_lse[bag])
        scores = torch.bmm(q_side * scale, k_side.mT).softmax(-1)  # (H, M, M)
        mixed[bag] = pinv_matmul_fwd(scores, values[bag], pinv_iterations)
        _from_queries_fwd(q[part], k_side * scale, mixed[bag], out[part])
    return out, q_marks, k_marks, mark_lse, values, mixed, values.new_empty(batch, 0)


def nystrom_bwd(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bounds: list[tuple[int, int]] | None,
    q_marks: Tensor,
    k_marks: Tensor,
    mark_lse: Tensor,
    values: Tensor,
    mixed: Tensor,
    row_lse: Tensor,
    num_landmarks: int,
    pinv_iterations: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, like them; in memory (B, N, H, D)."""
    grads = _token_major(q), _token_major(k), _token_major(v)
    for bag, (place, start, stop) in enumerate(_bags(q, bounds)):
        part = (place, slice(None), slice(start, stop))
        inputs = [x[part] for x in (grad, q, k, v)]  # (H, N, D)
        outputs = [x[part] for x in grads]
        if stop - start <= num_landmarks:
            _exact_bwd(*inputs, values[bag, :, : stop - start], scale, *outputs)
            continue
        saved = [x[bag] for x in (q_marks, k_marks, mark_lse, values, mixed)]
        _bag_bwd(inputs, saved, pinv_iterations, scale, outputs)
    return grads


def _bag_bwd(
    inputs: list[Tensor],
    saved: list[Tensor],
    pinv_iterations: int,
    scale: float,
    outputs: list[Tensor],
) -> None:
    grad, q, k, v = inputs
    q_marks, k_marks, mark_lse, values, mixed = saved
    grad_q, grad_k, grad_v = outputs
    q_side, k_side = (x.to(values.dtype) for x in (q_marks, k_marks))  # (H, M, D)
    q_scaled, k_scaled = q_side * scale, k_side * scale
    grad_mixed, grad_k_marks = _from_queries_bwd(grad, q, k_scaled, mixed, grad_q)
    grad_k_marks *= scale
    scores = torch.bmm(q_scaled, k_side.mT).softmax(-1)  # (H, M, M)
    grad_scores, grad_values = pinv_matmul_bwd(grad_mixed, scores, values, pinv_iterations)
    grad_scores = _softmax_bwd(grad_scores, scores)
    del scores
    grad_k_marks.baddbmm_(grad_scores.mT, q_scaled)
    grad_q_marks = torch.bmm(grad_scores, k_side)
    del grad_scores
    _to_keys_bwd(
        q_scaled, k, v, grad_values, mark_lse, values, grad_q_marks, grad_k_marks, grad_k, grad_v
    )
    grad_q_marks *= scale
    _add_to_segments(grad_q, grad_q_marks)


def _compute_dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _token_major(like: Tensor) -> Tensor:
    b, h, n, d = like.shape
    return like.new_empty(b, n, h, d).transpose(1, 2)


def _bags(q: Tensor, bounds: list[tuple[int, int]] | None) -> list[tuple[int, int, int]]:
    """Place in the batch dimension, first and last-plus-one token of each bag."""
    if bounds is None:
        return [(place, 0, q.shape[2]) for place in range(q.shape[0])]
    return [(0, start, stop) for start, stop in bounds]


def _chunks(n: int) -> Iterator[slice]:
    return (slice(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK))


def _exact_fwd(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """softmax(Q Kᵀ) V of (H, N, D) with few tokens, in at least fp32."""
    q, k, v = (x.to(_compute_dtype(x)) for x in (q, k, v))
    return torch.bmm(torch.bmm(q * scale, k.mT).softmax(-1), v)


def _exact_bwd(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    values: Tensor,
    scale: float,
    grad_q: Tensor,
    grad_k: Tensor,
    grad_v: Tensor,
) -> None:
    grad, q, k, v = (x.to(values.dtype) for x in (grad, q, k, v))
    q_scaled = q * scale
    attention = torch.bmm(q_scaled, k.mT).softmax(-1)  # (H, N, N)
    grad_v.copy_(torch.bmm(attention.mT, grad))
    grad_scores = _softmax_bwd(torch.bmm(grad, v.mT), attention)
    grad_q.copy_(torch.bmm(grad_scores, k * scale))
    grad_k.copy_(torch.bmm(grad_scores.mT, q_scaled))


def _softmax_bwd(grad: Tensor, softmax: Tensor) -> Tensor:
    return torch.ops.aten._softmax_backward_data(grad, softmax, -1, softmax.dtype)


def _segments(n: int, num_landmarks: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Bounds (M + 1,) of the balanced segments, and their lengths (M,)."""
    bounds = torch.arange(num_landmarks + 1, device=device) * n // num_landmarks
    return bounds, bounds.diff()


def _landmarks(x: Tensor, num_landmarks: int) -> Tensor:
    """Balanced segment means of (H, N, D), summed in at least fp32 -> (H, M, D)."""
    n = x.shape[1]
    compute = _compute_dtype(x)
    if n % num_landmarks == 0:
        return x.unflatten(1, (num_landmarks, -1)).mean(2, dtype=compute)
    # Segments hold ⌊N/M⌋ rows, some of them one more: sum the common part, then add the extra rows.
    bounds, lengths = _segments(n, num_landmarks, x.device)
    common = n // num_landmarks
    rows = (bounds[:-1, None] + torch.arange(common, device=x.device)).flatten()  # (M * common,)
    sums = x[:, rows].unflatten(1, (num_landmarks, common)).sum(2, dtype=compute)
    sums += x[:, bounds[1:] - 1].to(compute) * (lengths > common)[:, None]
    return sums / lengths[:, None]


def _add_to_segments(grad: Tensor, grad_marks: Tensor) -> None:
    """Give the tokens (H, N, D), in place, their shares of the landmarks' gradients."""
    n, marks = grad.shape[1], grad_marks.shape[1]
    _, lengths = _segments(n, marks, grad.device)
    segment = torch.arange(marks, device=grad.device).repeat_interleave(lengths)  # (N,)
    shares = grad_marks / lengths[:, None]
    for part in _chunks(n):
        grad[:, part] += shares[:, segment[part]]


def _from_queries_fwd(q: Tensor, k_scaled: Tensor, mixed: Tensor, out: Tensor) -> None:
    """out = softmax(Q K̃ᵀ) Y."""
    for part in _chunks(q.shape[1]):
        scores = torch.bmm(q[:, part].to(mixed.dtype), k_scaled.mT)  # (H, c, M)
        out[:, part] = torch.bmm(scores.softmax(-1), mixed)


def _from_queries_bwd(
    grad: Tensor, q: Tensor, k_scaled: Tensor, mixed: Tensor, grad_q: Tensor
) -> tuple[Tensor, Tensor]:
    """Write the queries' gradient; return those of Y and of K̃, which lacks the scale."""
    grad_mixed, grad_k_marks = torch.zeros_like(mixed), torch.zeros_like(mixed)
    for part in _chunks(q.shape[1]):
        queries, grads = (x[:, part].to(mixed.dtype) for x in (q, grad))  # (H, c, D)
        attention = torch.bmm(queries, k_scaled.mT).softmax(-1)  # (H, c, M)
        grad_mixed.baddbmm_(attention.mT, grads)
        grad_scores = _softmax_bwd(torch.bmm(grads, mixed.mT), attention)
        grad_q[:, part] = torch.bmm(grad_scores, k_scaled)
        grad_k_marks.baddbmm_(grad_scores.mT, queries)
    return grad_mixed, grad_k_marks


def _chunk_softmax(q_scaled: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax over the keys of one chunk (H, M, c), and its log-sum-exp (H, M, 1)."""
    scores = torch.bmm(q_scaled, keys.mT)
    attention = scores.softmax(-1)
    # The largest weight is 1 / Σ exp(score − largest): reading it back costs no second exp.
    return attention, scores.amax(-1, keepdim=True) - attention.amax(-1, keepdim=True).log()


def _to_keys_fwd(q_scaled: Tensor, k: Tensor, v: Tensor, values: Tensor, mark_lse: Tensor) -> None:
    """W = softmax(Q̃ Kᵀ) V and the log-sum-exp of its scores, into values and mark_lse."""
    lse = torch.full_like(mark_lse, float("-inf"))[..., None]  # (H, M, 1)
    for part in _chunks(k.shape[1]):
        keys, some = (x[:, part].to(values.dtype) for x in (k, v))  # (H, c, D)
        attention, chunk_lse = _chunk_softmax(q_scaled, keys)
        total = torch.logaddexp(lse, chunk_lse)
        values *= (lse - total).exp_()
        values += torch.bmm(attention, some).mul_((chunk_lse - total).exp_())
        lse = total
    mark_lse.copy_(lse[..., 0])


def _to_keys_bwd(
    q_scaled: Tensor,
    k: Tensor,
    v: Tensor,
    grad_values: Tensor,
    mark_lse: Tensor,
    values: Tensor,
    grad_q_marks: Tensor,
    grad_k_marks: Tensor,
    grad_k: Tensor,
    grad_v: Tensor,
) -> None:
    """Write the gradients of k and v, K̃'s share added; add Q̃'s, which lacks the scale."""
    delta = (grad_values * values).sum(-1, keepdim=True)  # (H, M, 1)
    for part in _chunks(k.shape[1]):
        keys, some = (x[:, part].to(values.dtype) for x in (k, v))  # (H, c, D)
        attention, chunk_lse = _chunk_softmax(q_scaled, keys)
        share = (chunk_lse - mark_lse[..., None]).exp_()  # of the chunk in the whole softmax
        grads = grad_values * share
        grad_v[:, part] = torch.bmm(attention.mT, grads)
        grad_scores = torch.baddbmm(delta * share, grads, some.mT, beta=-1).mul_(attention)
        grad_k[:, part] = torch.bmm(grad_scores.mT, q_scaled)
        grad_q_marks.baddbmm_(grad_scores, keys)
    _add_to_segments(grad_k, grad_k_marks)
