"""The specification of Nyström attention, never optimised."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor


def landmarks_reference(x: Tensor, num_landmarks: int, dtype: torch.dtype | None = None) -> Tensor:
    """Means of M contiguous, balanced segments: segment i is rows ⌊iN/M⌋ … ⌊(i+1)N/M⌋.

    Args:
        x: (..., N, D) with N ≥ M.

    Returns:
        (..., M, D), in ``dtype``, else in that of x.
    """
    n = x.shape[-2]
    bounds = [i * n // num_landmarks for i in range(num_landmarks + 1)]
    segments = [x[..., a:b, :].mean(-2, dtype=dtype) for a, b in pairwise(bounds)]
    return torch.stack(segments, dim=-2)


def pinv_reference(a: Tensor, iterations: int) -> Tensor:
    """Hyper-power pseudo-inverse of each matrix, Z ← ¼Z(13I − AZ(15I − AZ(7I − AZ))).

    The start is Z₀ = Aᵀ / (max row sum · max column sum), with the maxima of each matrix alone
    (Nyströmformer, Xiong et al. 2021, section 3.3).

    Args:
        a: (..., M, M).
    """
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    row_max = a.sum(-1).amax(-1)[..., None, None]
    column_max = a.sum(-2).amax(-1)[..., None, None]
    z = a.mT / (row_max * column_max)
    for _ in range(iterations):
        az = a @ z
        z = 0.25 * z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az)))
    return z


def nystrom_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    num_landmarks: int = 256,
    pinv_iterations: int = 6,
    scale: float | None = None,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """softmax(Q K̃ᵀ) · pinv(softmax(Q̃ K̃ᵀ)) · softmax(Q̃ Kᵀ) V (GiMP eq. 2); exact softmax if N ≤ M.

    Args:
        q, k, v: (B, H, N, D); with ``cu_seqlens`` (1, H, T, D). Half precisions compute in fp32.
        scale: factor of the scores, D^-1/2 by default.
        cu_seqlens: (B + 1,) bounds of the packed bags.

    Returns:
        Same shape and dtype as ``q``.
    """
    if cu_seqlens is not None:
        bounds = cu_seqlens.tolist()
        bags = [
            nystrom_attention_reference(
                q[:, :, a:b],
                k[:, :, a:b],
                v[:, :, a:b],
                num_landmarks=num_landmarks,
                pinv_iterations=pinv_iterations,
                scale=scale,
            )
            for a, b in pairwise(bounds)
        ]
        return torch.cat(bags, dim=2)
    dtype = q.dtype
    compute = torch.promote_types(dtype, torch.float32)
    q, k, v = (x.to(compute) for x in (q, k, v))
    q = q * (q.shape[-1] ** -0.5 if scale is None else scale)
    if q.shape[2] <= num_landmarks:
        return ((q @ k.mT).softmax(-1) @ v).to(dtype)
    q_marks = landmarks_reference(q, num_landmarks)  # (B, H, M, D)
    k_marks = landmarks_reference(k, num_landmarks)  # (B, H, M, D)
    tokens_to_marks = (q @ k_marks.mT).softmax(-1)  # (B, H, N, M)
    marks_to_marks = (q_marks @ k_marks.mT).softmax(-1)  # (B, H, M, M)
    marks_to_tokens = (q_marks @ k.mT).softmax(-1)  # (B, H, M, N)
    inverse = pinv_reference(marks_to_marks, pinv_iterations)
    return (tokens_to_marks @ (inverse @ (marks_to_tokens @ v))).to(dtype)
