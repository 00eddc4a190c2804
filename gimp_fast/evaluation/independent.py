"""A score of one sample of patients minus that of another, who were drawn independently."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gimp_fast.evaluation.intervals import Estimate, estimate


@dataclass(frozen=True)
class Drawn:
    """A score with its interval, and its bootstrap draws, (R,); ``draws`` is None without them."""

    estimate: Estimate
    draws: np.ndarray | None = None


def independent_difference(new: Drawn | None, other: Drawn | None) -> Estimate | None:
    """The first score minus the second, with its 95 % interval.

    The draws of both are subtracted, in the order in which they were drawn: the two samples have
    nothing in common. Where one has no draws, or all draws are alike, the interval is made of the
    ends of both intervals (Zou and Donner, Stat Med 2008). None if a score is missing.
    """
    if new is None or other is None:
        return None
    value = new.estimate.value - other.estimate.value
    if new.draws is None or other.draws is None:
        return Estimate(value, *_of_ends(new.estimate, other.estimate))
    count = min(len(new.draws), len(other.draws))
    gaps = new.draws[:count] - other.draws[:count]
    return estimate(value, gaps, lambda: _of_ends(new.estimate, other.estimate))


def _of_ends(new: Estimate, other: Estimate) -> tuple[float, float]:
    value = new.value - other.value
    below = np.hypot(new.value - new.low, other.high - other.value)
    above = np.hypot(new.high - new.value, other.value - other.low)
    return float(value - below), float(value + above)
