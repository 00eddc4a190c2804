"""Precision and recall of one class at every threshold of its probability."""

from __future__ import annotations

import numpy as np


def precision_recall(
    scores: np.ndarray, truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float] | None:
    """Recall and precision, (points,) with rising recall, and the average precision.

    The average precision is Σ (R_n − R_{n−1}) P_n over falling thresholds, a sum of steps: straight
    lines between the points would flatter. From recall 0 to the first point, the curve has that
    point's precision.

    Args:
        scores: (n,), higher is more likely positive; equal scores are one threshold.
        truth: (n,) bool.

    Returns:
        None if all or none are positive.
    """
    if truth.all() or not truth.any():
        return None
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # of each run of equal scores
    hits = np.cumsum(truth[order])[last]
    precision, recall = hits / (np.flatnonzero(last) + 1), hits / truth.sum()
    average = float(np.diff(recall, prepend=0.0) @ precision)
    return np.append(0.0, recall), np.append(precision[0], precision), average
