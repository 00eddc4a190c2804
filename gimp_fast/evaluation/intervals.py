"""Bootstrap intervals over patients, and the spread over trained models.

A patient can be in the test set of several folds and is predicted again with every seed. Such
predictions are not independent, so the bootstrap draws patients, each with all their predictions
(the cluster bootstrap).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % percentile interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n − 1) of single runs; None for too few of them."""

    mean: float | None
    sd: float | None
    values: tuple[float, ...]


def patient_weights(patients: int, resamples: int, seed: int = 0) -> np.ndarray:
    """How often each patient is drawn: (resamples, patients), rows sum to ``patients``.

    One such array serves all rows of a table, which makes their comparisons paired.
    """
    rng = np.random.default_rng(seed)
    return rng.multinomial(patients, np.full(patients, 1 / patients), size=resamples).astype(float)


def estimate(value: float, draws: np.ndarray) -> Estimate | None:
    """The value with the interval of its finite bootstrap draws.

    None if the value, or every draw, is not finite.
    """
    finite = draws[np.isfinite(draws)]
    if not np.isfinite(value) or not len(finite):
        return None
    low, high = np.percentile(finite, [2.5, 97.5])
    return Estimate(float(value), float(low), float(high))


def spread(values: Sequence[float]) -> Spread:
    array = np.asarray(values, float)
    return Spread(
        float(array.mean()) if len(array) else None,
        float(array.std(ddof=1)) if len(array) > 1 else None,
        tuple(array.tolist()),
    )
