"""How well predicted numbers agree with true ones, also for many resamples at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from gimp_fast.evaluation.comparison import Difference, compare_score, corrected
from gimp_fast.evaluation.intervals import Estimate, estimate
from gimp_fast.evaluation.rates import in_blocks


def regression_metrics(
    predicted: np.ndarray, truth: np.ndarray, weights: np.ndarray
) -> dict[str, Estimate | None]:
    """Scores of n patients, with 95 % intervals over bootstrap weights (R, n).

    Returns:
        mean_absolute_error; r_squared, 1 minus the squared error relative to the variance of these
        patients; correlation, Pearson's. None for one that is not defined.
    """
    once = regression_scores(predicted, truth, np.ones((1, len(truth))))
    drawn = [regression_scores(predicted, truth, some) for some in in_blocks(weights)]
    return {
        name: estimate(float(value), np.concatenate([block[name] for block in drawn]))
        for name, (value,) in once.items()
    }


def regression_scores(
    predicted: np.ndarray, truth: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Name -> (R,), NaN where all numbers of a resample are equal."""
    total = weights.sum(1)

    def mean(values: np.ndarray) -> np.ndarray:
        return weights @ values / total

    # Centred first: else the variance of large numbers is a difference of larger ones.
    y, x = truth - truth.mean(), predicted - predicted.mean()
    variance = mean(y**2) - mean(y) ** 2
    of_predicted = mean(x**2) - mean(x) ** 2
    shared = mean(x * y) - mean(x) * mean(y)
    smallest = 1e-12 * max(float((y**2).mean()), float((x**2).mean()), 1e-300)
    with np.errstate(invalid="ignore", divide="ignore"):
        varies = np.where(variance > smallest, variance, np.nan)
        both = np.where(of_predicted > smallest, of_predicted, np.nan) * varies
        return {
            "mean_absolute_error": mean(np.abs(predicted - truth)),
            "r_squared": 1 - mean((predicted - truth) ** 2) / varies,
            "correlation": shared / np.sqrt(both),
        }


@dataclass(frozen=True)
class NumberPredictions:
    """Predicted and true numbers of n patients, by one model: all (n,)."""

    patient: np.ndarray
    split: np.ndarray
    predicted: np.ndarray
    truth: np.ndarray

    def chosen(self, rows: np.ndarray) -> NumberPredictions:
        """Some of the predictions, by (n,) bool."""
        every = (self.patient, self.split, self.predicted, self.truth)
        return NumberPredictions(*(array[rows] for array in every))


def compare_numbers(
    predicted: Mapping[str, np.ndarray], reference: str, truth: np.ndarray, weights: np.ndarray
) -> dict[str, dict[str, Difference | None]]:
    """Each model against the reference, with p values corrected for the number of comparisons.

    Args:
        predicted: name -> (n,).
        reference: one of the names.
        truth: (n,).
        weights: (R, n) of the bootstrap.

    Returns:
        name of each other -> ``mean_absolute_error`` and ``correlation`` -> difference, None where
        it is not defined.
    """
    rows = np.arange(len(truth))
    models = {
        name: NumberPredictions(rows, np.zeros_like(rows), values, truth)
        for name, values in predicted.items()
    }
    whole = models.pop(reference)
    found: dict[str, dict[str, Difference | None]] = {name: {} for name in models}
    for score in ("mean_absolute_error", "correlation"):
        scored = partial(_score, score)
        tests = {name: compare_score(each, whole, weights, scored) for name, each in models.items()}
        holm = corrected({name: test for name, test in tests.items() if test is not None})
        for name in models:
            found[name][score] = holm.get(name)
    return found


def _score(name: str, model: NumberPredictions, weights: np.ndarray) -> np.ndarray:
    return regression_scores(model.predicted, model.truth, weights)[name]
