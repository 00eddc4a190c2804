"""Times to an event, and what needs no model: survival curves, log-rank test, calibration groups.

A patient has a time and whether the event was observed then. Without it they are censored: the
event comes later than this time, or never, and nobody knows which.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Outcomes:
    """What happened to n patients.

    Attributes:
        time: (n,) float64, finite and > 0, of the event or of the end of observation.
        event: (n,) bool. False: censored.
    """

    time: np.ndarray
    event: np.ndarray

    def __post_init__(self) -> None:
        time, event = np.asarray(self.time, np.float64), np.asarray(self.event)
        if time.ndim != 1 or event.shape != time.shape:
            raise ValueError(
                f"Times and events must be two arrays of one length; they are {time.shape} and "
                f"{event.shape}."
            )
        if not len(time):
            raise ValueError("There are no patients.")
        if event.dtype != bool:
            raise ValueError(f"Whether the event was observed must be bool, not {event.dtype}.")
        if len(wrong := np.flatnonzero(~(np.isfinite(time) & (time > 0)))):
            raise ValueError(f"Times must be finite and > 0; row {wrong[0]} has {time[wrong[0]]}.")
        object.__setattr__(self, "time", time)
        object.__setattr__(self, "event", event)

    def __len__(self) -> int:
        return len(self.time)

    def chosen(self, rows: np.ndarray) -> Outcomes:
        """Some of the patients, by (n,) bool or by their numbers, which may repeat."""
        return Outcomes(self.time[rows], self.event[rows])


@dataclass(frozen=True)
class Curve:
    """A right-continuous step function that starts at 1: the share without an event.

    Attributes:
        times: (K,) the distinct times.
        survival: (K,) the share from each of them on.
        at_risk: (K,) patients whose event could be observed at each time.
        events, censored: (K,) patients who had the event, and who left without it.
    """

    times: np.ndarray
    survival: np.ndarray
    at_risk: np.ndarray
    events: np.ndarray
    censored: np.ndarray

    def at(self, times: np.ndarray) -> np.ndarray:
        """The share at any times, in their shape.

        NaN after the last patient, unless the curve is zero by then.
        """
        return self._step(self.survival, times)

    def at_risk_at(self, times: np.ndarray) -> np.ndarray:
        """How many are at risk at any times, in their shape."""
        return np.r_[self.at_risk, 0][np.searchsorted(self.times, times)]

    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the pointwise 95 % interval, (K,) each: Greenwood's, of log(−log S).

        An empty interval where the curve is 1 or 0: there the formula says nothing.
        """
        left = self.at_risk - self.events
        inside = (self.survival > 0) & (self.survival < 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = np.cumsum(self.events / (self.at_risk * left))
            error = np.where(inside, np.sqrt(variance) / -np.log(self.survival), 0.0)
        low, high = (self.survival ** np.exp(sign * _Z * error) for sign in (1, -1))
        return low, high

    def interval_at(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the interval at any times; NaN where the curve is."""
        low, high = (self._step(end, times) for end in self.interval())
        return low, high

    def _step(self, values: np.ndarray, times: np.ndarray) -> np.ndarray:
        found = np.r_[1.0, values][np.searchsorted(self.times, times, side="right")]
        unknown = (np.asarray(times) > self.times[-1]) & (self.survival[-1] > 0)
        return np.where(unknown, np.nan, found)


def kaplan_meier(outcomes: Outcomes) -> Curve:
    """The share of patients without an event by each time (Kaplan and Meier, JASA 1958)."""
    times, at_risk, events, censored = _counts(outcomes)
    return Curve(times, np.cumprod(1 - events / at_risk), at_risk, events, censored)


def censoring_distribution(outcomes: Outcomes) -> Curve:
    """The share not censored by each time, G, to weight scores of censored patients with.

    Censoring is its event. At the same time true events come first, so those who have one are not
    at risk of being censored then.
    """
    times, at_risk, events, censored = _counts(outcomes)
    at_risk = at_risk - events
    lost = np.divide(censored, at_risk, out=np.zeros(len(times)), where=at_risk > 0)
    return Curve(times, np.cumprod(1 - lost), at_risk, events=censored, censored=events)


def _counts(outcomes: Outcomes) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Distinct times; at risk, with an event and censored at each: (K,) each."""
    times, code = np.unique(outcomes.time, return_inverse=True)
    events, censored = (
        np.bincount(code[chosen], minlength=len(times))
        for chosen in (outcomes.event, ~outcomes.event)
    )
    at_risk = np.cumsum((events + censored)[::-1])[::-1]
    return times, at_risk, events, censored


def logrank(*groups: Outcomes) -> float:
    """p of the log-rank test that two or more groups have the same survival.

    Groups of whom nobody is left at the first event are not compared.

    Raises:
        ValueError: no event can tell two groups apart.
    """
    times = np.unique(np.concatenate([group.time[group.event] for group in groups]))
    at_risk = np.stack([kaplan_meier(group).at_risk_at(times) for group in groups])
    events = np.stack(
        [
            np.bincount(np.searchsorted(times, group.time[group.event]), minlength=len(times))
            for group in groups
        ]
    )  # (groups, times)
    everyone, died = at_risk.sum(0), events.sum(0)
    share = at_risk / everyone
    excess = (events - share * died).sum(1)
    # Given their total, the events of a time fall on the groups as balls drawn from an urn.
    spread = died * (everyone - died) / np.maximum(everyone - 1, 1)
    variance = (share * (1 - share)) @ spread
    compared = np.flatnonzero(variance > 0)
    if len(compared) < 2:
        raise ValueError(
            "The log-rank test needs an event while patients of two groups are at risk, and one "
            "of them must outlast it."
        )
    covariance = np.diag(variance)
    covariance -= np.where(np.eye(len(groups)), 0.0, (share * spread) @ share.T)
    free = compared[:-1]  # all excesses add up to zero
    statistic = excess[free] @ np.linalg.solve(covariance[np.ix_(free, free)], excess[free])
    from scipy.stats import chi2  # a second, which commands that compare nothing save

    return float(chi2.sf(statistic, len(free)))


@dataclass(frozen=True)
class CalibrationGroups:
    """Predicted and observed survival at a horizon, (groups,) each, by increasing prediction.

    Observed is the Kaplan-Meier share with its 95 % interval; NaN if all patients of a group left
    before the horizon.
    """

    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray


def calibration(
    outcomes: Outcomes, survival_at_horizon: np.ndarray, horizon: float, bins: int
) -> CalibrationGroups:
    """Sort patients by (n,) predicted survival into groups of equal size, and look what happened.

    Of fewer patients than ``bins``, each is a group.
    """
    predicted = np.asarray(survival_at_horizon, np.float64)
    if predicted.shape != (len(outcomes),) or not ((predicted >= 0) & (predicted <= 1)).all():
        raise ValueError(f"Predicted survival must be {len(outcomes)} numbers from 0 to 1.")
    order = np.argsort(predicted, kind="stable")
    groups = [rows for rows in np.array_split(order, bins) if len(rows)]
    curves = [kaplan_meier(outcomes.chosen(rows)) for rows in groups]
    low, high = np.array([curve.interval_at(horizon) for curve in curves]).T
    return CalibrationGroups(
        np.array([predicted[rows].mean() for rows in groups]),
        np.array([curve.at(horizon) for curve in curves]),
        low,
        high,
        np.array([len(rows) for rows in groups]),
    )
