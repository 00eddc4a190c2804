"""Whether predictions are too extreme or too tame: calibration slopes, for resamples at once.

A slope of 1 is right. Below 1, predictions differ more between patients than outcomes do, as those
of a model that was fitted too closely; above 1, less.
"""

from __future__ import annotations

import numpy as np

from gimp_fast.evaluation.kaplan_meier import Outcomes
from gimp_fast.evaluation.rates import in_blocks

_STEPS, _LONGEST, _CLOSE = 50, 1.0, 1e-8
_FAR = 30.0  # a coefficient of a standardised predictor beyond it has no maximum


def cox_slope(outcomes: Outcomes, log_hazard: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The coefficient of Cox's model whose only feature is a predicted log-hazard: (R,).

    Ties are Breslow's. NaN for a resample without a maximum: no event, equal predictions, or
    predictions that order all events perfectly.

    Args:
        outcomes: of n patients.
        log_hazard: (n,), such as log(−log S) of a predicted survival S.
        weights: (R, n) of a bootstrap.
    """
    x = np.asarray(log_hazard, np.float64)
    spread = x.std()
    if not spread > 0:
        return np.full(len(weights), np.nan)
    order = np.argsort(-outcomes.time, kind="stable")  # the risk set of a time is a beginning
    z, time, event = ((x - x.mean()) / spread)[order], outcomes.time[order], outcomes.event[order]
    ends = np.searchsorted(-time, -time, side="right") - 1
    found = [_newton(z, event, ends[event], some[:, order]) for some in in_blocks(weights)]
    return np.concatenate(found) / spread


def _newton(z: np.ndarray, event: np.ndarray, ends: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The maximum of each resample, (R,); the likelihood is concave."""
    slope, step = np.zeros(len(weights)), np.full(len(weights), np.inf)
    of_events = weights[:, event]
    for _ in range(_STEPS):
        exponent = slope[:, None] * z
        risk = weights * np.exp(exponent - exponent.max(1, keepdims=True))
        sums, first, second = (np.cumsum(risk * power, axis=1)[:, ends] for power in (1.0, z, z**2))
        with np.errstate(divide="ignore", invalid="ignore"):
            mean, square = first / sums, second / sums
            counted = of_events > 0  # the risk set of an event that was not drawn may be empty
            gradient = np.where(counted, of_events * (z[event] - mean), 0.0).sum(1)
            curvature = np.where(counted, of_events * (square - mean**2), 0.0).sum(1)
            step = np.clip(gradient / curvature, -_LONGEST, _LONGEST)
        step = np.where(curvature > 0, step, np.nan)
        slope = slope + np.nan_to_num(step)
        if (np.abs(np.nan_to_num(step)) < _CLOSE).all():
            break
    return np.where((np.abs(step) < 1e-4) & (np.abs(slope) < _FAR), slope, np.nan)


def linear_slope(
    predicted: np.ndarray, truth: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept of the line truth = intercept + slope · predicted: (R,) each.

    NaN for a resample whose predictions are all equal. Of (n,) numbers and weights (R, n).
    """
    total = weights.sum(1)
    x, y = predicted - predicted.mean(), truth - truth.mean()
    mean_x, mean_y = weights @ x / total, weights @ y / total
    variance = weights @ x**2 / total - mean_x**2
    shared = weights @ (x * y) / total - mean_x * mean_y
    smallest = 1e-12 * max(float((x**2).mean()), 1e-300)
    slope = shared / np.where(variance > smallest, variance, np.nan)
    at_mean = mean_y + truth.mean() - slope * (mean_x + predicted.mean())
    return slope, at_mean
