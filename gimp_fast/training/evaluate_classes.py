"""What a run records of classes: its predictions and its scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gimp_fast.evaluation.rates import metrics_with_intervals
from gimp_fast.runs.records import CasePredictions
from gimp_fast.training.evaluate_outcomes import EVALUATED


def evaluated_predictions(
    classes: tuple[str, ...],
    cases: Sequence[str],
    parts: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
) -> CasePredictions:
    """The predictions that a run records: those of validation, then those of test.

    Args:
        classes: names of the K classes.
        cases: ids of n patients.
        parts: (n,) unicode, their part of the split.
        labels: (n,) int.
        probabilities: (n, K).
    """
    predicted = probabilities.argmax(1)
    rows = np.concatenate([np.flatnonzero(parts == part) for part in EVALUATED])
    arrays = (np.array(cases), parts, labels, predicted, probabilities)
    return CasePredictions(tuple(classes), *(array[rows] for array in arrays))


def scores_of(predictions: CasePredictions, resamples: int, seed: int) -> dict[str, Any]:
    """``val`` and ``test`` of :class:`Metrics`."""
    scores = {}
    for part in EVALUATED:
        chosen = predictions.of(part)
        scores[part] = metrics_with_intervals(
            chosen.probabilities, chosen.label, resamples=resamples, seed=seed
        )
    return scores
