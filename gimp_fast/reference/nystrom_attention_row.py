"""The specification of the rows of Nyström attention: the dense matrix, never optimised."""

from __future__ import annotations

import torch
from torch import Tensor

from gimp_fast.reference.nystrom_attention import landmarks_reference, pinv_reference


def nystrom_matrix_reference(
    q: Tensor,
    k: Tensor,
    *,
    num_landmarks: int = 256,
    pinv_iterations: int = 6,
    scale: float | None = None,
) -> Tensor:
    """softmax(Q K̃ᵀ) · pinv(softmax(Q̃ K̃ᵀ)) · softmax(Q̃ Kᵀ) (GiMP eq. 2); exact softmax if N ≤ M.

    Args:
        q, k: (B, H, N, D). Half precisions compute in fp32.
        scale: factor of the scores, D^-1/2 by default.

    Returns:
        (B, H, N, N): row i holds the weight of every token in the output of token i.
    """
    q, k = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (q, k))
    q = q * (q.shape[-1] ** -0.5 if scale is None else scale)
    if q.shape[2] <= num_landmarks:
        return (q @ k.mT).softmax(-1)
    q_marks = landmarks_reference(q, num_landmarks)  # (B, H, M, D)
    k_marks = landmarks_reference(k, num_landmarks)  # (B, H, M, D)
    inverse = pinv_reference((q_marks @ k_marks.mT).softmax(-1), pinv_iterations)
    return (q @ k_marks.mT).softmax(-1) @ inverse @ (q_marks @ k.mT).softmax(-1)
