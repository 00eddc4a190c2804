"""Classification: one of K classes for each patient."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from gimp_fast.evaluation.rates import cross_entropy, rates

Scores = dict[str, float]


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each patient, (B,), from logits (B, K) and classes (B,)."""
    return F.cross_entropy(logits, labels, reduction="none")


def hits(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) float, 1 where the likeliest class is the true one."""
    return (logits.detach().argmax(-1) == labels).float()


def scores(probabilities: np.ndarray, labels: np.ndarray) -> Scores:
    """``loss``, ``accuracy``, and ``auc`` where every class has a patient.

    The loss is NaN, alone, where a probability is not finite.

    Args:
        probabilities: (patients, K).
        labels: (patients,) int.
    """
    if not np.isfinite(probabilities).all():
        return {"loss": float("nan")}
    values = rates(probabilities, labels)
    found = {"loss": cross_entropy(probabilities, labels), "accuracy": values["accuracy"]}
    return found if values["auc"] is None else found | {"auc": values["auc"]}


def rank(scores: Scores, select: str) -> tuple[float, ...]:
    """Larger is better; decides the best epoch. Ties go to the lower loss.

    Args:
        scores: of the validation patients.
        select: ``"accuracy"``, ``"auc"`` or ``"loss"``.
    """
    if select == "loss":
        return (-scores["loss"],)
    return (scores.get(select, 0.0), -scores["loss"])
