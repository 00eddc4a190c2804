"""Bootstrap intervals over patients or hospitals, and the spread over trained models.

A patient can be in the test set of several folds and is predicted again with every seed. Such
predictions are not independent, so the bootstrap draws patients, each with all their predictions
(the cluster bootstrap). Where the question is how a model does at hospitals that it has not seen,
hospitals are what varies: they are drawn, each with all its patients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_EQUAL = 1e-9  # sums of weights round
# What pages and tables say of the intervals that ``estimate`` makes.
WITHOUT_SPREAD = (
    "Where every resample gives the same value, as when all patients are predicted correctly, the "
    "bootstrap says nothing; then the interval is a score interval, which depends on the number of "
    "patients: Wilson's for shares, Newcombe's for the AUC."
)


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; see :func:`estimate`."""

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


def cluster_weights(cluster: np.ndarray, resamples: int, seed: int = 0) -> np.ndarray:
    """How often each patient is drawn if whole clusters are: (resamples, patients).

    ``cluster`` is (patients,) int, the numbers 0 … of, say, their hospitals. As many clusters are
    drawn as there are.
    """
    return patient_weights(int(cluster.max()) + 1, resamples, seed)[:, cluster]


def estimate(
    value: float, draws: np.ndarray, otherwise: Callable[[], tuple[float, float]] | None = None
) -> Estimate | None:
    """The value with the percentile interval of its finite bootstrap draws.

    Args:
        value: of all patients.
        draws: of each resample.
        otherwise: the ends to use if the percentiles are one and the same value, which is no
            interval.

    Returns:
        None if the value, or every draw, is not finite.
    """
    finite = draws[np.isfinite(draws)]
    if not np.isfinite(value) or not len(finite):
        return None
    low, high = np.percentile(finite, [2.5, 97.5])
    if otherwise is not None and high - low < _EQUAL:
        low, high = otherwise()
        low, high = min(low, value), max(high, value)
    return Estimate(float(value), float(low), float(high))


def spread(values: Sequence[float]) -> Spread:
    array = np.asarray(values, float)
    return Spread(
        float(array.mean()) if len(array) else None,
        float(array.std(ddof=1)) if len(array) > 1 else None,
        tuple(array.tolist()),
    )
