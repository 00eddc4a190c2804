"""Classification of each patient into one of K classes."""

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
    """(B,) float, 1 where the predicted class is the true one, else 0."""
    return (logits.detach().argmax(-1) == labels).float()


def scores(probabilities: np.ndarray, labels: np.ndarray) -> Scores:
    """``loss`` and ``accuracy``, and ``auc`` if every class has a patient.

    If a probability is not finite, there is only a loss, NaN.

    Args:
        probabilities: (patients, K).
        labels: (patients,) int.
    """
    if not np.isfinite(probabilities).all():
        return {"loss": float("nan")}
    values = rates(probabilities, labels)
    result = {"loss": cross_entropy(probabilities, labels), "accuracy": values["accuracy"]}
    return result if values["auc"] is None else result | {"auc": values["auc"]}


def rank(scores: Scores, select: str) -> tuple[float, ...]:
    """The rank of an epoch: the largest is the best. Ties go to the lower loss.

    Args:
        scores: scores of the validation patients.
        select: ``"accuracy"``, ``"auc"`` or ``"loss"``.
    """
    if select == "loss":
        return (-scores["loss"],)
    return (scores.get(select, 0.0), -scores["loss"])


class Classification:
    """Training by cross-entropy; the base of targets that are learnt in another way."""

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of each patient, (B,), from logits (B, K) and classes (B,)."""
        return loss(logits, labels)

    def scores(self, probabilities: np.ndarray, labels: np.ndarray) -> Scores:
        """Numbers by name of the validation patients, at least ``"loss"``; see :func:`scores`."""
        return scores(probabilities, labels)

    def rank(self, scores: Scores, select: str) -> tuple[float, ...]:
        """The rank of an epoch, the largest is the best; ``select`` is ``finetune.select``."""
        return rank(scores, select)
