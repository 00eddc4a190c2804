"""Losses on representations of patients or of their tokens."""

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
    is an anchor. Squared Euclidean distances are computed from differences, so that equal rows have
    distance zero and a zero gradient.

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
    same = labels[:, None] == labels[None, :]  # (B, B)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    return triplet_loss_of_pairs(
        features, same & ~itself, ~same, margin=margin, mining=mining, normalize=normalize
    )


def triplet_loss_of_pairs(
    features: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    margin: float = 0.8,
    mining: Literal["hard", "all"] = "hard",
    normalize: bool = False,
) -> Tensor:
    """:func:`triplet_loss` where classes do not say who is alike, as with censored outcomes.

    Args:
        features: (B, C).
        positive, negative: (B, B) bool, in row i those of anchor i; the diagonal is False. A pair
            may be neither.
        margin, mining, normalize: as in :func:`triplet_loss`.

    Raises:
        ValueError: shapes that do not fit, or an unknown mining strategy.
    """
    if not positive.shape == negative.shape == (len(features), len(features)):
        raise ValueError(
            f"triplets: positive and negative must be {(len(features), len(features))}, got "
            f"{tuple(positive.shape)} and {tuple(negative.shape)}"
        )
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    if normalize:
        features = F.normalize(features, dim=-1)
    distances = (features[:, None] - features[None, :]).square().sum(-1)  # (B, B)
    if mining == "hard":
        anchors = positive.any(1) & negative.any(1)  # (B,)
        farthest = distances.masked_fill(~positive, float("-inf")).amax(1)
        nearest = distances.masked_fill(~negative, float("inf")).amin(1)
        # Others are not left out, which would wait for a GPU: theirs is relu(-inf), 0.
        violations = F.relu(farthest + margin - nearest)  # (B,)
        return violations.sum() / anchors.sum().clamp(min=1)
    if mining == "all":
        gaps = (
            distances[:, :, None] + margin - distances[:, None, :]
        )  # (anchor, positive, negative)
        valid = positive[:, :, None] & negative[:, None, :]
        violations = F.relu(gaps).where(valid, 0.0)
        return violations.sum() / (violations > 0).sum().clamp(min=1)
    raise ValueError(f"triplets: mining must be 'hard' or 'all', got {mining!r}")


def info_nce_loss(
    first: Tensor, second: Tensor, temperature: float, first_weight: float = 0.5
) -> Tensor:
    """InfoNCE in both directions: cross-entropy of finding each row's partner among N rows.

        s_ij = cos(a_i, b_j) / τ
        L = −1/N Σ_i [w log softmax_j(s_ij)_i + (1 − w) log softmax_j(s_ji)_i]

    Oord et al. 2018, https://arxiv.org/abs/1807.03748. Half precisions compute in fp32.

    Args:
        first, second: (..., N, d); row i of one belongs to row i of the other.
        temperature: τ.
        first_weight: w, the weight of the direction from first to second.

    Returns:
        (...); zero, with zero gradient, for a single pair.
    """
    with _full_precision(first):
        similarity = unit_rows(first) @ unit_rows(second).transpose(-1, -2) / temperature
    to_second = similarity.log_softmax(-1).diagonal(dim1=-2, dim2=-1)  # (..., N)
    to_first = similarity.log_softmax(-2).diagonal(dim1=-2, dim2=-1)
    return -(first_weight * to_second + (1 - first_weight) * to_first).mean(-1)


@torch.no_grad()
def sinkhorn_codes(scores: Tensor, *, epsilon: float = 0.05, steps: int = 3) -> Tensor:
    """Soft assignments of rows to columns, all columns equally used (Sinkhorn–Knopp).

    In every step the columns and then the rows of exp(scores / ε) are scaled to equal sums (Caron
    et al., NeurIPS 2020, https://arxiv.org/abs/2006.09882).

    Args:
        scores: (B, K).
        epsilon: ε.
        steps: number of steps.

    Returns:
        (B, K); rows sum to one, columns to about B / K.
    """
    logs = scores / epsilon
    for _ in range(steps):
        logs = logs - logs.logsumexp(0, keepdim=True)
        logs = logs - logs.logsumexp(1, keepdim=True)
    return logs.exp()


def swapped_prediction_loss(
    first: Tensor,
    second: Tensor,
    *,
    temperature: float = 0.2,
    epsilon: float = 0.05,
    steps: int = 3,
) -> Tensor:
    """Cross-entropy of each view's prototypes, predicted from the other view.

        L = −1/2B Σ_i [q(b_i) · log softmax(a_i / τ) + q(a_i) · log softmax(b_i / τ)]

    with q of :func:`sinkhorn_codes` (Caron et al., NeurIPS 2020, eq. 1 and 2).

    Args:
        first, second: (B, K) scores of the same patients with the prototypes, in two views.
        temperature: τ.
        epsilon, steps: as in :func:`sinkhorn_codes`.

    Returns:
        Scalar; zero for a single prototype.
    """
    of_second = (sinkhorn_codes(second, epsilon=epsilon, steps=steps), first)
    of_first = (sinkhorn_codes(first, epsilon=epsilon, steps=steps), second)
    losses = [(q * (s / temperature).log_softmax(-1)).sum(-1) for q, s in (of_second, of_first)]
    return -0.5 * (losses[0] + losses[1]).mean()


def unit_rows(rows: Tensor) -> Tensor:
    """Rows scaled to unit length, in at least fp32."""
    return F.normalize(rows.to(torch.promote_types(rows.dtype, torch.float32)), dim=-1)


def _full_precision(tensor: Tensor) -> torch.autocast:
    """A context in which autocast does not round products."""
    return torch.autocast(tensor.device.type, enabled=False)
