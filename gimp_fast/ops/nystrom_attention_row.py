"""Rows of the Nyström attention matrix, and its product with a vector, never forming it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gimp_fast.ops.nystrom_attention import validate_inputs
from gimp_fast.ops.overflow import has_overflowed, multiplied, score_factors
from gimp_fast.ops.packing import Bags, as_bags, bag_slices
from gimp_fast.ops.registration import compute_dtype
from gimp_fast.reference.nystrom_attention import landmarks_reference, pinv_reference

# So many tokens have their scores against the landmarks in memory at a time.
CHUNK = 1024


@torch.no_grad()
def nystrom_attention_row(
    q: Tensor,
    k: Tensor,
    *,
    row: int = 0,
    num_landmarks: int = 256,
    pinv_iterations: int = 6,
    scale: float | None = None,
    cu_seqlens: Tensor | Bags | None = None,
) -> Tensor:
    """Attention of one token of each bag, such as CLS, over all tokens of its bag.

    Row ``row`` of A = softmax(Q K̃ᵀ) · Z · softmax(Q̃ Kᵀ), the matrix by which
    :func:`gimp_fast.ops.nystrom_attention` multiplies V (GiMP eq. 2); where N ≤ M, of exact softmax
    attention. It takes O(N·M) time and, besides the inputs, O(N) memory. Nyström weights can be
    negative, and they sum to one only as exactly as Z is an inverse. No gradients are computed.

    Args:
        q, k: (B, H, N, D) in fp64, fp32, bf16 or fp16; any strides. With ``cu_seqlens``:
            (1, H, T, D), B bags of different lengths one after the other.
        row: index of the token within each bag; negative counts from the bag's end.
        num_landmarks: M.
        pinv_iterations: hyper-power iterations; use the number that the model was trained with.
        scale: factor of the scores, D^-1/2 by default.
        cu_seqlens: (B + 1,) int32 or int64 bounds of the packed bags, or bags.

    Returns:
        (B, H, N), with ``cu_seqlens`` (1, H, T); fp64 for fp64 inputs, else fp32.

    Raises:
        ValueError: shapes, dtypes, devices, counts or bounds do not fit, or a bag has no such row.
    """
    name = "nystrom_attention_row"
    validate_inputs(name, {"q": q, "k": k}, num_landmarks, pinv_iterations, cu_seqlens)
    slices = _slices(q, cu_seqlens)
    for number, (_, tokens) in enumerate(slices):
        length = tokens.stop - tokens.start
        if not -length <= row < length:
            raise ValueError(f"{name}: row {row} is outside bag {number} of {length} tokens")
    out = torch.empty(q.shape[:3], dtype=compute_dtype(q), device=q.device)
    one = out.new_ones(q.shape[1], 1)  # (H, 1)
    for entry, tokens in slices:
        q_bag, k_bag = q[entry, :, tokens], k[entry, :, tokens]  # (H, N, D)
        query = q_bag[:, row].unsqueeze(1)  # (H, 1, D)
        settings = (num_landmarks, pinv_iterations, scale)
        out[entry, :, tokens] = _one_bag(query, one, q_bag, k_bag, *settings)
        if has_overflowed(out[entry, :, tokens]):
            q_bag, k_bag = multiplied(q_bag, k_bag, score_factors(q_bag, k_bag))
            query = q_bag[:, row].unsqueeze(1)
            out[entry, :, tokens] = _one_bag(query, one, q_bag, k_bag, *settings)
    return out


@torch.no_grad()
def nystrom_attention_left(
    q: Tensor,
    k: Tensor,
    weights: Tensor,
    *,
    num_landmarks: int = 256,
    pinv_iterations: int = 6,
    scale: float | None = None,
    cu_seqlens: Tensor | Bags | None = None,
) -> Tensor:
    """wᵀ A of each bag and head: the weighted sum of the rows of the Nyström attention matrix.

    A, time, memory, signs and gradients are as in :func:`nystrom_attention_row`.

    Args:
        q, k: (B, H, N, D), or packed (1, H, T, D), as in :func:`nystrom_attention_row`.
        weights: w, (B, H, N) or packed (1, H, T), of any floating dtype.
        num_landmarks, pinv_iterations, scale, cu_seqlens: as in :func:`nystrom_attention_row`.

    Returns:
        Shape of ``weights``; fp64 for fp64 ``q``, else fp32.

    Raises:
        ValueError: shapes, dtypes, devices, counts or bounds do not fit.
    """
    name = "nystrom_attention_left"
    validate_inputs(name, {"q": q, "k": k}, num_landmarks, pinv_iterations, cu_seqlens)
    if weights.shape != q.shape[:3] or not weights.is_floating_point():
        raise ValueError(
            f"{name}: weights must be floating of shape {tuple(q.shape[:3])}, "
            f"got {weights.dtype} {tuple(weights.shape)}"
        )
    if weights.device != q.device:
        raise ValueError(f"{name}: weights must be on {q.device}, got {weights.device}")
    out = weights.to(compute_dtype(q), copy=True)
    for entry, tokens in _slices(q, cu_seqlens):
        q_bag, k_bag = q[entry, :, tokens], k[entry, :, tokens]  # (H, N, D)
        given, settings = out[entry, :, tokens].clone(), (num_landmarks, pinv_iterations, scale)
        out[entry, :, tokens] = _one_bag(q_bag, given, q_bag, k_bag, *settings)
        if has_overflowed(out[entry, :, tokens]):
            q_bag, k_bag = multiplied(q_bag, k_bag, score_factors(q_bag, k_bag))
            out[entry, :, tokens] = _one_bag(q_bag, given, q_bag, k_bag, *settings)
    return out


def _slices(q: Tensor, cu_seqlens: Tensor | Bags | None) -> list[tuple[int, slice]]:
    """Entry of the batch and tokens of each bag."""
    spans = None if cu_seqlens is None else as_bags(cu_seqlens, q.shape[2]).spans
    return bag_slices(q, spans)


def _one_bag(
    queries: Tensor,
    weights: Tensor,
    q: Tensor,
    k: Tensor,
    num_landmarks: int,
    pinv_iterations: int,
    scale: float | None,
) -> Tensor:
    """Σᵣ weights[r] · (attention row of queries[r]): (H, R, D), (H, R), (H, N, D) -> (H, N)."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    # Without this, autocast would run the products in half precision; the pseudo-inverse overflows.
    with torch.autocast(q.device.type, enabled=False):
        if q.shape[1] <= num_landmarks:
            return _sum_of_rows(queries, weights, k.to(compute_dtype(k)) * scale)
        q_marks = landmarks_reference(q, num_landmarks, compute_dtype(q)) * scale  # (H, M, D)
        k_marks = landmarks_reference(k, num_landmarks, compute_dtype(k))  # (H, M, D)
        inverse = pinv_reference((q_marks @ k_marks.mT).softmax(-1), pinv_iterations)
        on_marks = _sum_of_rows(queries, weights, k_marks * scale)  # (H, M)
        on_marks = (on_marks[:, None] @ inverse)[:, 0]
        return _from_landmarks(on_marks, q_marks, k)


def _sum_of_rows(queries: Tensor, weights: Tensor, keys: Tensor) -> Tensor:
    """weightsᵀ softmax(queries keysᵀ): (H, R, D), (H, R), few keys (H, M, D) -> (H, M)."""
    total = keys.new_zeros(keys.shape[:2])
    for part, w in zip(queries.split(CHUNK, 1), weights.split(CHUNK, 1), strict=True):
        attention = (part.to(keys.dtype) @ keys.mT).softmax(-1)  # (H, chunk, M)
        total += (w[:, None] @ attention)[:, 0]
    return total


def _from_landmarks(weights: Tensor, q_marks: Tensor, k: Tensor) -> Tensor:
    """weightsᵀ softmax(Q̃ Kᵀ), over all keys: (H, M), (H, M, D), (H, N, D) -> (H, N)."""
    # e^(scores − lse) in two fast steps: the softmax of a chunk, times its share of the whole sum.
    # Results go into tensors that exist before: small ones allocated between large temporaries
    # would fragment the heap.
    chunk_lse = q_marks.new_empty(-(-k.shape[1] // CHUNK), *q_marks.shape[:2])  # (chunks, H, M)
    for lse, scores in zip(chunk_lse, _scores(q_marks, k), strict=True):
        lse.copy_(scores.logsumexp(-1))
    shares = weights * (chunk_lse - chunk_lse.logsumexp(0)).exp()  # (chunks, H, M)
    out = q_marks.new_empty(k.shape[:2])
    parts = zip(out.split(CHUNK, 1), shares, _scores(q_marks, k), strict=True)
    for part, w, scores in parts:
        part.copy_((w[:, None] @ scores.softmax(-1))[:, 0])
    return out


def _scores(q_marks: Tensor, k: Tensor) -> Iterator[Tensor]:
    """(H, M, chunk) of each chunk of keys in turn."""
    return (q_marks @ keys.to(q_marks.dtype).mT for keys in k.split(CHUNK, 1))
