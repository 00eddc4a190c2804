"""Classification of each patient into one of K classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from gimp_fast.evaluation.comparison import Difference, compare_all
from gimp_fast.evaluation.linear_probe import probe
from gimp_fast.evaluation.rates import Predictions, cross_entropy, metrics_with_intervals, rates
from gimp_fast.targets.base import Scores, Target, pairs_of_groups


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each patient, (B,), from logits (B, K) and classes (B,)."""
    return F.cross_entropy(logits, labels, reduction="none")


def hits(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) float, 1 where the predicted class is the true one, else 0."""
    return (logits.detach().argmax(-1) == labels).float()


class Classification(Target):
    """Training by cross-entropy; the base of classes that are learnt in another way.

    The truth is the place of a patient's class, (B,) int64; predictions are probabilities, (B, K).
    """

    kind: ClassVar[str] = "class"
    measures = ("accuracy", "auc", "loss")

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of each patient, (B,), from logits (B, K) and classes (B,)."""
        return loss(logits, labels)

    def predictions(self, logits: Tensor) -> Tensor:
        """Probabilities (B, K)."""
        return logits.float().softmax(-1)

    def scores(self, probabilities: np.ndarray, labels: np.ndarray) -> Scores:
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

    def explained(self, logits: Tensor) -> Tensor:
        """z_c minus the mean of the other z, of the predicted class c."""
        chosen = int(logits.argmax())
        return logits[chosen] - (logits.sum() - logits[chosen]) / (len(logits) - 1)

    def pairs(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Patients of one class are alike, all others differ."""
        return pairs_of_groups(labels)

    def probe(
        self, vectors: np.ndarray, truth: np.ndarray, asked: np.ndarray, wanted: np.ndarray
    ) -> Scores:
        """``loss`` and ``accuracy`` of logistic regression."""
        fitted = np.arange(len(truth) + len(wanted)) < len(truth)
        _, codes = np.unique(np.concatenate([truth, wanted]), return_inverse=True)
        probabilities = probe(np.concatenate([vectors, asked]), codes, fitted, ~fitted)
        accuracy = float((probabilities.argmax(1) == codes[~fitted]).mean())
        return {"loss": cross_entropy(probabilities, codes[~fitted]), "accuracy": accuracy}

    def in_training(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"accuracy": hits(logits, labels)}

    def evaluated(
        self,
        probabilities: np.ndarray,
        labels: np.ndarray,
        training: np.ndarray,
        resamples: int,
        seed: int,
    ) -> dict[str, Any]:
        """See :func:`gimp_fast.evaluation.rates.metrics_with_intervals`."""
        return metrics_with_intervals(probabilities, labels, resamples=resamples, seed=seed)

    def compared(
        self,
        probabilities: Mapping[str, np.ndarray],
        reference: str,
        labels: np.ndarray,
        weights: np.ndarray,
    ) -> dict[str, dict[str, Difference | None]]:
        """Of ``accuracy``, by McNemar's exact test, and of ``auc``."""
        models = {
            name: Predictions.of_one_model(values, labels) for name, values in probabilities.items()
        }
        pairs = compare_all(models, reference, weights)
        return {name: {"accuracy": pair.accuracy, "auc": pair.auc} for name, pair in pairs.items()}
