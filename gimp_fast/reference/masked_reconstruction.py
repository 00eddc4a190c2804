"""The specification of the reconstruction of masked patches (GiMP eq. 3)."""

from __future__ import annotations

from torch import Tensor

from gimp_fast.reference.masked_l1 import masked_l1_reference


def masked_reconstruction_reference(
    tokens: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    mask: Tensor,
    reduction: str,
) -> Tensor:
    """Masked L1 between every decoded token z Wᵀ + b and its patch embedding.

    Args:
        tokens: (..., N, d) float.
        weight: (C, d), same dtype.
        bias: (C,), same dtype.
        target: (..., N, C), same dtype.
        mask: (..., N) bool, True = counted.
        reduction: ``"sum"`` or ``"mean"``; the mean over no elements is 0.

    Returns:
        Scalar in the dtype of the input.
    """
    decoded = tokens @ weight.mT + (0 if bias is None else bias)  # (..., N, C)
    return masked_l1_reference(decoded, target, mask, reduction)
