"""Random survival outcomes and predictions, and the answer of a refused score."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gimp_fast.evaluation.kaplan_meier import Outcomes

SIZES = [2, 3, 7, 50, 301]
# Share of censored patients, and how many different times there are: None for as many as patients.
KINDS = {
    "half-censored": (0.5, None),
    "mostly-censored": (0.9, None),
    "nobody-censored": (0.0, None),
    "tied-times": (0.5, 6),
}
of_every_kind = pytest.mark.parametrize("kind", KINDS)
of_every_size = pytest.mark.parametrize("n", SIZES, ids=lambda n: f"n{n}")


def random_outcomes(n: int, kind: str = "half-censored", seed: int = 0) -> Outcomes:
    """At least the first patient has an event."""
    censored, distinct = KINDS[kind]
    rng = np.random.default_rng(seed)
    time = rng.exponential(10, n) + 0.1
    if distinct is not None:
        time = rng.integers(1, distinct + 1, n).astype(float)
    event = rng.random(n) >= censored
    event[0] = True
    return Outcomes(time, event)


def longest_censored(n: int) -> Outcomes:
    """Those of :func:`random_outcomes`, and nobody knows what follows the last time."""
    outcomes = random_outcomes(n)
    return Outcomes(outcomes.time, outcomes.event & (outcomes.time < outcomes.time.max()))


def followed_longer(n: int = 60, seed: int = 1) -> Outcomes:
    """Others, whose censoring distribution is known and not zero for all times of the former."""
    outcomes = random_outcomes(n, seed=seed)
    return Outcomes(np.r_[outcomes.time, 1e3], np.r_[outcomes.event, True])


def random_risk(n: int, seed: int = 2) -> np.ndarray:
    """Some are equal, and some nearly: gaps of 5e-9, which are ties, and of 2e-8."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=n).round(1) + rng.choice([0, 0, 5e-9, 2.5e-8], n)


def random_survival(n: int, horizons: np.ndarray, seed: int = 3) -> np.ndarray:
    """(n, T) that falls with the horizon."""
    rng = np.random.default_rng(seed)
    return np.exp(-np.cumsum(rng.exponential(0.4, (n, len(horizons))), axis=1))


def horizons_of(outcomes: Outcomes) -> np.ndarray:
    """Times of patients, before the last one if they differ."""
    found = np.unique(np.quantile(outcomes.time, [0.2, 0.4, 0.6, 0.8], method="lower"))
    return found[found < outcomes.time.max()] if len(found) > 1 else found


def or_nan(score: Callable[..., Any], *args: Any) -> Any:
    """The score, NaN if it is refused."""
    try:
        return score(*args)
    except ValueError:
        return np.nan
