"""95 % intervals in closed form, for results that no resample can change.

If all of 20 patients are predicted correctly, so are those of every resample, and the bootstrap
gives 1 to 1. Score intervals ask instead which true values make such a result likely enough, and so
depend on the number of patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

Ends = tuple[float, float]
_Z = NormalDist().inv_cdf(0.975)
_BELOW_ONE = 1 - 1e-12


def wilson(share: np.ndarray | float, count: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Ends of Wilson's interval of a share of ``count`` patients (JASA 1927); arrays of one shape.

    They are 0 where the share is 0, and 1 where it is 1.
    """
    share, count = np.asarray(share, float), np.asarray(count, float)
    middle = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z * np.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    half /= 1 + _Z**2 / count
    return (
        np.where(share == 0, 0.0, np.clip(middle - half, 0, 1)),
        np.where(share == 1, 1.0, np.clip(middle + half, 0, 1)),
    )


def of_share(share: float, count: int) -> Ends:
    """Wilson's interval of one share."""
    low, high = wilson(share, count)
    return float(low), float(high)


def of_mean_share(shares: Sequence[float], counts: Sequence[int]) -> Ends:
    """Interval of the mean of shares in different patients, such as the balanced accuracy.

    It recovers the variance of each share from the ends of its Wilson interval (Zou and Donner,
    Stat Med 2008).
    """
    share = np.asarray(shares, float)
    low, high = wilson(share, counts)
    below, above = (np.sqrt(((end - share) ** 2).sum()) / len(share) for end in (low, high))
    middle = share.mean()
    return float(max(0.0, middle - below)), float(min(1.0, middle + above))


def of_f1(hits: Sequence[int], concerned: Sequence[int]) -> Ends:
    """Interval of the mean F1 of several classes.

    F1 is 2 J / (1 + J), where J is the share of hits among the patients who are of the class or are
    predicted as it. A patient can concern two classes, so the means of the ends are taken: no
    smaller interval is safe.
    """
    count = np.asarray(concerned, float)
    ends = wilson(np.asarray(hits, float) / count, count)
    low, high = (float(np.mean(2 * end / (1 + end))) for end in ends)
    return low, high


def of_area(area: float, positives: int, negatives: int) -> Ends:
    """Interval of an area under the ROC curve (Newcombe, Stat Med 2006, method 5).

    It holds the areas θ with (area − θ)² ≤ z² V(θ), where V is Hanley and McNeil's variance with
    the numbers of both kinds of patients replaced by their mean where they enter alone.
    """
    return (
        _lower_end(area, positives, negatives),
        1 - _lower_end(1 - area, positives, negatives),
    )


def _lower_end(area: float, positives: int, negatives: int) -> float:
    others = (positives + negatives) / 2 - 1

    def excess(theta: float) -> float:
        """(area − θ)² − z² V(θ), both without the factor 1 − θ, which is zero for an area of 1."""
        pairs = (1 - theta) / (2 - theta) + theta / (1 + theta)
        variance = theta * (1 + others * pairs) / (positives * negatives)
        return (area - theta) ** 2 / (1 - theta) - _Z**2 * variance

    if area <= 0:
        return 0.0
    from scipy.optimize import brentq  # half a second, seldom needed

    return float(brentq(excess, 0.0, min(area, _BELOW_ONE)))


def of_difference(value: float, patients: int) -> Ends:
    """Interval of a paired difference that is the same for every patient, such as none.

    A share w of all patients could still differ, Wilson's upper end of 0 of these patients, and
    differ by anything from −1 to 1. For a difference of zero this is Tango's interval (Stat Med
    1998): from −w to w.
    """
    others = of_share(0.0, patients)[1]
    return value - others * (1 + value), value + others * (1 - value)
