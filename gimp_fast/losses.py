"""Losses that work on patient representations."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def triplet_loss(
    features: Tensor,
    labels: Tensor,
    *,
    margin: float = 0.8,
    mining: Literal["hard", "all"] = "hard",
    normalize: bool = False,
) -> Tensor:
    """max(‖x − x⁺‖² + δ − ‖x − x⁻‖², 0) over triplets mined in the batch (GiMP eq. 4).

    Every sample that has both a positive (same label, another sample) and a negative in the batch
    is an anchor. The distances are squared Euclidean and are formed from differences, so that equal
    rows have distance zero and a zero gradient.

    Args:
        features: (B, C) patient representations, CLS_pat. Half precisions compute in fp32.
        labels: (B,) integers.
        margin: δ.
        mining: ``"hard"`` takes for each anchor its farthest positive and nearest negative and
            averages over the anchors (batch-hard); ``"all"`` averages over all triplets that
            violate the margin (batch-all).
        normalize: scale each row to unit length first, so that δ is relative to at most 4.

    Returns:
        Scalar; zero, with zero gradient, if the batch holds no triplet or none violates the margin.

    Raises:
        ValueError: shapes that do not fit, or an unknown mining strategy.
    """
    if features.dim() != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            "triplet_loss: features must be (B, C) and labels (B,), "
            f"got {tuple(features.shape)} and {tuple(labels.shape)}"
        )
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    if normalize:
        features = F.normalize(features, dim=-1)
    distances = (features[:, None] - features[None, :]).square().sum(-1)  # (B, B)
    same = labels[:, None] == labels[None, :]  # (B, B)
    positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    negative = ~same
    if mining == "hard":
        anchors = positive.any(1) & negative.any(1)  # (B,)
        farthest = distances.masked_fill(~positive, float("-inf")).amax(1)[anchors]
        nearest = distances.masked_fill(~negative, float("inf")).amin(1)[anchors]
        violations = F.relu(farthest + margin - nearest)  # (anchors,)
        return violations.sum() / max(len(violations), 1)
    if mining == "all":
        gaps = (
            distances[:, :, None] + margin - distances[:, None, :]
        )  # (anchor, positive, negative)
        valid = positive[:, :, None] & negative[:, None, :]
        violations = F.relu(gaps[valid])
        return violations.sum() / (violations > 0).sum().clamp(min=1)
    raise ValueError(f"triplet_loss: mining must be 'hard' or 'all', got {mining!r}")
