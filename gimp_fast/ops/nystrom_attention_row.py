"""Rows of the Nyström attention matrix, and its product with a vector, without the matrix."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from gimp_fast.ops.layout import compute_dtype
from gimp_fast.ops.packing import Bags, as_bags
from gimp_fast.reference.nystrom_attention import pinv_reference

# Tokens whose scores against the landmarks exist at a time.
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
    """Attention of one token of each bag over all tokens of its bag, such as that of a CLS token.

    Row ``row`` of A = softmax(Q K̃ᵀ) · Z · softmax(Q̃ Kᵀ), the matrix by which
    :func:`gimp_fast.ops.nystrom_attention` multiplies V (GiMP eq. 2); of exact softmax attention
    where N ≤ M. O(N·M) time, and memory for O(N) numbers besides the inputs. A Nyström row can hold
    negative weights, and sums to one only as nearly as Z is an inverse. Computed without gradients.

    Args:
        q, k: (B, H, N, D) in fp64, fp32, bf16 or fp16; any strides. With ``cu_seqlens``:
            (1, H, T, D), B bags of different lengths one after the other.
        row: token whose row it is, counted within each bag; negative from the bag's end.
        num_landmarks: M.
        pinv_iterations: hyper-power iterations; a model needs the number it was trained with.
        scale: factor of the scores, D^-1/2 by default.
        cu_seqlens: (B + 1,) int32 or int64 bounds of the packed bags.

    Returns:
        (B, H, N), with ``cu_seqlens`` (1, H, T); fp64 for fp64 inputs, else fp32.

    Raises:
        ValueError: shapes, dtypes, devices, counts or bounds that do not fit; a bag without that
            row.
    """
    name = "nystrom_attention_row"
    _validate(name, q, k, num_landmarks, pinv_iterations)
    bags = _bags(name, q, cu_seqlens)
    for number, (_, start, stop) in enumerate(bags):
        if not start - stop <= row < stop - start:
            raise ValueError(f"{name}: row {row} is outside bag {number} of {stop - start} tokens")
    out = torch.empty(q.shape[:3], dtype=compute_dtype(q), device=q.device)
    one = out.new_ones(q.shape[1], 1)  # (H, 1)
    for place, start, stop in bags:
        q_bag, k_bag = q[place, :, start:stop], k[place, :, start:stop]  # (H, N, D)
        query = q_bag[:, row].unsqueeze(1)  # (H, 1, D)
        out[place, :, start:stop] = _one_bag(
            query, one, q_bag, k_bag, num_landmarks, pinv_iterations, scale
        )
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
    """wᵀ A of each bag and head: the rows of the Nyström attention matrix, summed with weights.

    What :func:`nystrom_attention_row` says of A, time, memory, signs and gradients holds here.

    Args:
        q, k: (B, H, N, D), or packed (1, H, T, D), as in :func:`nystrom_attention_row`.
        weights: (B, H, N), or packed (1, H, T), of any floating dtype: w.
        num_landmarks, pinv_iterations, scale, cu_seqlens: as in :func:`nystrom_attention_row`.

    Returns:
        Shape of ``weights``; fp64 for fp64 ``q``, else fp32.

    Raises:
        ValueError: shapes, dtypes, devices, counts or bounds that do not fit.
    """
    name = "nystrom_attention_left"
    _validate(name, q, k, num_landmarks, pinv_iterations)
    if weights.shape != q.shape[:3] or not weights.is_floating_point():
        raise ValueError(
            f"{name}: weights must be floating of shape {tuple(q.shape[:3])}, "
            f"got {weights.dtype} {tuple(weights.shape)}"
        )
    if weights.device != q.device:
        raise ValueError(f"{name}: weights must be on {q.device}, got {weights.device}")
    out = weights.to(compute_dtype(q), copy=True)
    for place, start, stop in _bags(name, q, cu_seqlens):
        q_bag, k_bag = q[place, :, start:stop], k[place, :, start:stop]  # (H, N, D)
        out[place, :, start:stop] = _one_bag(
            q_bag, out[place, :, start:stop], q_bag, k_bag, num_landmarks, pinv_iterations, scale
        )
    return out


def _validate(name: str, q: Tensor, k: Tensor, num_landmarks: int, pinv_iterations: int) -> None:
    if q.dim() != 4 or q.shape != k.shape:
        raise ValueError(
            f"{name}: q, k must share one shape (B, H, N, D), "
            f"got {tuple(q.shape)}, {tuple(k.shape)}"
        )
    if not q.is_floating_point() or q.dtype != k.dtype:
        raise ValueError(f"{name}: q, k must share one floating dtype, got {q.dtype}, {k.dtype}")
    if q.device != k.device:
        raise ValueError(f"{name}: q, k must be on one device, got {q.device}, {k.device}")
    if num_landmarks < 1:
        raise ValueError(f"{name}: num_landmarks must be at least 1, got {num_landmarks}")
    if pinv_iterations < 0:
        raise ValueError(f"{name}: pinv_iterations must not be negative, got {pinv_iterations}")


def _bags(name: str, q: Tensor, cu_seqlens: Tensor | Bags | None) -> list[tuple[int, int, int]]:
    """Place in the batch dimension, first and last-plus-one token of each bag."""
    if cu_seqlens is None:
        return [(place, 0, q.shape[2]) for place in range(q.shape[0])]
    if q.shape[0] != 1:
        raise ValueError(f"{name}: packed bags need shape (1, H, T, D), got {tuple(q.shape)}")
    return [(0, start, stop) for start, stop in as_bags(cu_seqlens, q.shape[2]).spans]


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
    # Autocast would run the products in half precision, whose range the pseudo-inverse can leave.
    with torch.autocast(q.device.type, enabled=False):
        if q.shape[1] <= num_landmarks:
            return _sum_of_rows(queries, weights, k.to(compute_dtype(k)) * scale)
        q_marks = _landmarks(q, num_landmarks) * scale  # (H, M, D)
        k_marks = _landmarks(k, num_landmarks)  # (H, M, D)
        inverse = pinv_reference((q_marks @ k_marks.mT).softmax(-1), pinv_iterations)
        on_marks = _sum_of_rows(queries, weights, k_marks * scale)  # (H, M)
        on_marks = (on_marks[:, None] @ inverse)[:, 0]
        return _from_landmarks(on_marks, q_marks, k)


def _landmarks(x: Tensor, num_landmarks: int) -> Tensor:
    """Balanced segment means in at least fp32, (H, N, D) -> (H, M, D)."""
    bounds = [i * x.shape[1] // num_landmarks for i in range(num_landmarks + 1)]
    means = [x[:, a:b].mean(1, dtype=compute_dtype(x)) for a, b in pairwise(bounds)]
    return torch.stack(means, dim=1)


def _sum_of_rows(queries: Tensor, weights: Tensor, keys: Tensor) -> Tensor:
    """weightsᵀ softmax(queries keysᵀ): (H, R, D), (H, R), few keys (H, M, D) -> (H, M)."""
    total = keys.new_zeros(keys.shape[:2])
    for some, w in zip(queries.split(CHUNK, 1), weights.split(CHUNK, 1), strict=True):
        attention = (some.to(keys.dtype) @ keys.mT).softmax(-1)  # (H, chunk, M)
        total += (w[:, None] @ attention)[:, 0]
    return total


def _from_landmarks(weights: Tensor, q_marks: Tensor, k: Tensor) -> Tensor:
    """weightsᵀ softmax(Q̃ Kᵀ), over all keys: (H, M), (H, M, D), (H, N, D) -> (H, N)."""
    # A chunk's own softmax, times its share of the whole sum: e^(scores − lse) in two fast steps.
    # Into tensors made before: small results between large temporaries leave a heap of holes.
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
    """(H, M, chunk) of every chunk of keys in turn."""
    return (q_marks @ some.to(q_marks.dtype).mT for some in k.split(CHUNK, 1))
