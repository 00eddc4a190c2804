"""The specification of masked L1 (GiMP eq. 3)."""

from __future__ import annotations

from torch import Tensor


def masked_l1_reference(prediction: Tensor, target: Tensor, mask: Tensor, reduction: str) -> Tensor:
    """Sum of |prediction − target| over the counted elements, or its mean.

    Args:
        prediction: (..., N, C) float.
        target: (..., N, C), same dtype.
        mask: (..., N) bool, True = counted.
        reduction: ``"sum"`` or ``"mean"``; the mean over no elements is 0.

    Returns:
        Scalar in the dtype of the input.
    """
    difference = (prediction[mask] - target[mask]).abs()  # (counted rows, C)
    return difference.sum() / (max(difference.numel(), 1) if reduction == "mean" else 1)
