"""Nyström attention by torch's own matrix products, a bag and a chunk of its tokens at a time.

No N×M matrix is formed. Only the scores of one chunk exist, and they fit the cache; the backward
pass computes them again. Chunks start at the first token of a bag and are summed in order, so the
result of a bag does not depend on the bags around it.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from gimp_fast.ops.nystrom_heads import heads_bwd, heads_fwd, softmax_bwd
from gimp_fast.ops.overflow import can_be_read, has_overflowed, multiplied, score_factors
from gimp_fast.ops.packing import bag_slices
from gimp_fast.ops.products import is_fast, run_side_by_side
from gimp_fast.ops.registration import compute_dtype, token_major
from gimp_fast.ops.segment_means import segments


def nystrom_fwd(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    spans: list[tuple[int, int]] | None,
    num_landmarks: int,
    pinv_iterations: int,
    scale: float,
    q_marks: Tensor | None = None,
    q_spans: list[tuple[int, int]] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The output, and what the backward pass needs besides q, k and v.

    Args:
        q, k, v: (B, H, N, D) of one dtype, any strides; with ``spans`` (1, H, T, D).
        spans: (start, stop) of each packed bag.
        q_marks: (bags, H, M′, D), the landmarks Q̃ of all tokens, if q has only some of them:
            (B, H, R, D), or with ``q_spans`` (1, H, R, D). Bags with N ≤ M do not read them.
        q_spans: (start, stop) of each bag in q.

    Returns:
        out like q, in memory (B, N, H, D); Q̃, K̃ (bags, H, M′, D) in the dtype of q; base-2 log of
        Σ exp of the landmarks' scores (bags, H, M′); W = softmax(Q̃ Kᵀ)V and Y = Z W
        (bags, H, M′, D); and (bags, H, 2), the :func:`score_factors` of q and k. The last four are
        fp64 for fp64 inputs, else fp32. M′ is M for packed bags, min(M, N) in a batch. For bags
        with N ≤ M, ``W[:N]`` holds the output of exact attention; the other rows are zero.
    """
    _, h, n, d = k.shape
    slices = bag_slices(k, spans)
    q_slices = slices if q_marks is None else bag_slices(q, q_spans)
    marks = min(num_landmarks, n) if spans is None else num_landmarks
    out = token_major(q)
    k_marks = k.new_zeros(len(slices), h, marks, d)
    given, q_marks = q_marks, torch.zeros_like(k_marks)
    values, mixed = (torch.zeros_like(k_marks, dtype=compute_dtype(q)) for _ in range(2))
    mark_lse = values.new_zeros(len(slices), h, marks)
    factors = values.new_ones(len(slices), h, 2)
    for bag, ((entry, tokens), (q_entry, rows)) in enumerate(zip(slices, q_slices, strict=True)):
        inputs = [q[q_entry, :, rows]]  # (H, R, D)
        inputs += [x[entry, :, tokens] for x in (k, v)]  # (H, N, D) each
        if rows.start == rows.stop:
            continue
        if given is not None:
            inputs.append(given[bag])
        outputs = [x[bag] for x in (q_marks, k_marks, mark_lse, values, mixed)]
        outputs.append(out[q_entry, :, rows])
        _bag_fwd(inputs, num_landmarks, pinv_iterations, scale, outputs)
        if has_overflowed(outputs[-1]):
            factors[bag] = _shrink(inputs, num_landmarks)
            _bag_fwd(inputs, num_landmarks, pinv_iterations, scale, outputs)
    return out, q_marks, k_marks, mark_lse, values, mixed, factors


def _shrink(inputs: list[Tensor], num_landmarks: int) -> Tensor:
    """Multiply q, its landmarks and k in the list by their :func:`score_factors`; return these."""
    q, k, _, *q_marks = inputs
    if q_marks and k.shape[1] > num_landmarks:
        q = torch.cat([q, *q_marks], 1)
    factors = score_factors(q, k)
    inputs[:2] = multiplied(*inputs[:2], factors)
    if q_marks:
        inputs[3], _ = multiplied(*q_marks, k, factors)
    return factors


def nystrom_bwd(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    spans: list[tuple[int, int]] | None,
    q_marks: Tensor,
    k_marks: Tensor,
    mark_lse: Tensor,
    values: Tensor,
    mixed: Tensor,
    factors: Tensor,
    num_landmarks: int,
    pinv_iterations: int,
    scale: float,
    grads: tuple[Tensor, Tensor, Tensor] | None = None,
    q_spans: list[tuple[int, int]] | None = None,
    marks_given: bool = False,
) -> tuple[Tensor, ...]:
    """Gradients of q, k and v, written into ``grads`` or else into memory (B, N, H, D).

    Args:
        q_spans: as in the forward pass.
        marks_given: whether that pass was given the landmarks of q. Then their gradient is the
            fourth tensor, like ``q_marks``, and that of q has no share of it.
    """
    grads = grads or (token_major(q), token_major(k), token_major(v))
    slices = bag_slices(k, spans)
    q_slices = bag_slices(q, q_spans) if marks_given else slices
    if marks_given:
        grads = (*grads, torch.zeros_like(q_marks))
    for bag, ((entry, tokens), (q_entry, rows)) in enumerate(zip(slices, q_slices, strict=True)):
        inputs = [x[q_entry, :, rows] for x in (grad, q)]  # (H, R, D) each
        inputs += [x[entry, :, tokens] for x in (k, v)]  # (H, N, D) each
        outputs = [grads[0][q_entry, :, rows], *(x[entry, :, tokens] for x in grads[1:3])]
        outputs += [x[bag] for x in grads[3:]]
        if rows.start == rows.stop:
            for x in outputs[1:3]:
                x.zero_()
            continue
        rescaled = can_be_read(factors) and not bool((factors[bag] == 1).all())
        if rescaled:
            inputs[1:3] = multiplied(*inputs[1:3], factors[bag])
        length = tokens.stop - tokens.start
        if length <= num_landmarks:
            _exact_bwd(inputs, scale, outputs[:3])
        else:
            saved = [x[bag] for x in (q_marks, k_marks, mark_lse, values, mixed)]
            _bag_bwd(inputs, saved, pinv_iterations, scale, outputs)
        if rescaled:
            of_q, of_k = factors[bag][..., None, None].to(k.dtype).unbind(1)  # (H, 1, 1) each
            outputs[1].mul_(of_k)
            for x in (outputs[0], *outputs[3:]):
                x.mul_(of_q)
    return grads


def _bag_fwd(
    inputs: list[Tensor],
    num_landmarks: int,
    pinv_iterations: int,
    scale: float,
    outputs: list[Tensor],
) -> None:
    q, k, v, *given = inputs  # (H, R, D), (H, N, D) twice, and Q̃ if it is given; of one bag
    q_marks, k_marks, _, values, _, out = outputs
    if k.shape[1] <= num_landmarks:
        _exact_fwd(q, k, v, scale, values[:, : q.shape[1]], out)
        return
    q_marks.copy_(given[0] if given else _landmarks(q, num_landmarks))
    k_marks.copy_(_landmarks(k, num_landmarks))
    tasks = [
        partial(
            heads_fwd,
            [x[heads] for x in (q, k, v)],
            q_marks[heads],
            k_marks[heads],
            pinv_iterations,
            scale,
            [x[heads] for x in outputs[2:]],
        )
        for heads in _head_groups(q, num_landmarks**2 * q.shape[-1])
    ]
    run_side_by_side(tasks)


def _bag_bwd(
    inputs: list[Tensor],
    saved: list[Tensor],
    pinv_iterations: int,
    scale: float,
    outputs: list[Tensor],
) -> None:
    k, q_marks = inputs[2], saved[0]  # (H, N, D), (H, M, D) of one bag
    num_landmarks = q_marks.shape[1]
    segment, lengths = segments(k.shape[1], num_landmarks, k.device)
    tasks = [
        partial(
            heads_bwd,
            [x[heads] for x in inputs],
            [x[heads] for x in saved],
            pinv_iterations,
            scale,
            segment,
            lengths,
            [x[heads] for x in outputs],
        )
        for heads in _head_groups(k, num_landmarks**2 * k.shape[-1])
    ]
    run_side_by_side(tasks)


def _head_groups(q: Tensor, multiply_adds: int) -> list[slice]:
    """Heads to compute together: one at a time where single products are fast, else all."""
    h = len(q)  # (H, N, D)
    singly = is_fast(torch.empty(0, dtype=compute_dtype(q), device=q.device), multiply_adds)
    return [slice(head, head + 1) for head in range(h)] if singly else [slice(0, h)]


def _exact_fwd(q: Tensor, k: Tensor, v: Tensor, scale: float, values: Tensor, out: Tensor) -> None:
    """Write softmax(Q Kᵀ) V of a few tokens into values (fp32 or wider) and out, (H, N, D)."""
    q, k, v = (x.to(values.dtype) for x in (q, k, v))
    values.copy_(torch.bmm(torch.bmm(q * scale, k.mT).softmax(-1), v))
    out.copy_(values)


def _exact_bwd(inputs: list[Tensor], scale: float, outputs: list[Tensor]) -> None:
    grad, q, k, v = (x.to(compute_dtype(x)) for x in inputs)
    grad_q, grad_k, grad_v = outputs
    q_scaled = q * scale
    attention = torch.bmm(q_scaled, k.mT).softmax(-1)  # (H, N, N)
    grad_v.copy_(torch.bmm(attention.mT, grad))
    grad_scores = softmax_bwd(torch.bmm(grad, v.mT), attention)
    grad_q.copy_(torch.bmm(grad_scores, k * scale))
    grad_k.copy_(torch.bmm(grad_scores.mT, q_scaled))


def _landmarks(x: Tensor, num_landmarks: int) -> Tensor:
    """Means of balanced segments, summed in fp32 or wider: (H, N, D) -> (H, M, D)."""
    h, n, d = x.shape
    starts = torch.arange(num_landmarks, device=x.device) * n // num_landmarks
    rows = x.transpose(0, 1).flatten(1)  # (N, H * D)
    lengths = torch.cat([starts[1:], starts.new_tensor([n])]) - starts
    sums = F.embedding_bag(torch.arange(n, device=x.device), rows, starts, mode="sum")
    return (sums / lengths[:, None]).unflatten(1, (h, d)).transpose(0, 1)
