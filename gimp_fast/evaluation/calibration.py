"""Whether probabilities mean what they say: reliability bins, calibration error, Brier score.

The bins hold equally many predictions. Bins of equal width, the other custom, are empty or nearly
so where no model puts its probabilities, and the error then depends on a handful of patients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gimp_fast.evaluation.score_intervals import wilson

BINS = 10
ECE = f"ECE ({BINS} equal-mass bins)"


@dataclass(frozen=True)
class Reliability:
    """Bins of confidence, the probability of the predicted class.

    Each is (bins,): mean confidence, share of right predictions, and number of predictions.
    """

    confidence: np.ndarray
    share: np.ndarray
    count: np.ndarray

    @property
    def error(self) -> float:
        """ECE: mean distance of confidence and share (Guo et al., ICML 2017, eq. 3)."""
        return float(np.average(np.abs(self.share - self.confidence), weights=self.count))

    def wilson(self) -> np.ndarray:
        """(2, bins): 95 % Wilson interval of each share."""
        return np.stack(wilson(self.share, self.count))


def reliability(confidence: np.ndarray, hits: np.ndarray, bins: int = BINS) -> Reliability:
    """Sort n predictions into bins of equally many; of fewer than ``bins``, each has its own.

    Takes (n,) probabilities of the predicted class, and (n,) bool: whether it is right.
    """
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return Reliability(
        np.array([confidence[part].mean() for part in parts]),
        np.array([hits[part].mean() for part in parts]),
        np.array([len(part) for part in parts]),
    )


def brier_of_patients(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n,): ½ Σ_k (p_k − [k = y])² of each prediction. Of two classes, the usual (p − y)²."""
    truth = np.eye(probabilities.shape[1])[labels]
    return 0.5 * ((probabilities - truth) ** 2).sum(1)


def brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Brier score: the mean of :func:`brier_of_patients`. 0 is best, 1 worst."""
    return float(brier_of_patients(probabilities, labels).mean())
