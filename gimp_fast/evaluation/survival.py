"""How well predicted risks and survival agree with outcomes, also for many resamples at once.

Each score is defined for patients, and for bootstrap weights (R, n) of them, whole or not. A
patient drawn twice is two patients; a pair of the two decides nothing, because their times are
equal. Without weights a score is a number, and one that is not defined is a ``ValueError``. With
weights it is (R,), NaN where a resample does not define it.

Censored patients are made up for by weights 1 / G of those who had an event (IPCW), where G is the
``censoring_distribution`` of other patients, such as the training patients, and is not drawn again.
Torchsurv has these scores too, but not in float64, and without weights for a bootstrap.
"""

from __future__ import annotations

import numpy as np

from gimp_fast.evaluation.kaplan_meier import Curve, Outcomes
from gimp_fast.evaluation.rates import in_blocks, weighted_area
from gimp_fast.evaluation.survival_checks import (
    checked_risk,
    checked_survival,
    checked_times,
    checked_weights,
    require_events,
    require_followed,
    require_known,
)

_TIED = 1e-8  # risks that differ by less are equal
_EVENTS = 256  # rows of pairs at a time, to bound the memory


def harrell_c(
    outcomes: Outcomes, risk: np.ndarray, weights: np.ndarray | None = None
) -> float | np.ndarray:
    """Share of comparable pairs in the right order (Harrell et al., JAMA 1982): float or (R,).

    Two patients are comparable if the earlier time is an event; at equal times, if one is an event
    and the other is not, which counts as later. Of the (n,) risks, the higher belongs to the
    earlier event; equal ones count half.
    """
    if weights is None:
        return _defined(harrell_c(outcomes, risk, _once(outcomes)), "No event comes before")
    risk, weights = checked_risk(outcomes, risk), checked_weights(outcomes, weights)
    return _concordance(outcomes, risk, outcomes.event.astype(float), weights)


def uno_c(
    outcomes: Outcomes,
    risk: np.ndarray,
    censoring: Curve,
    weights: np.ndarray | None = None,
    tau: float | None = None,
) -> float | np.ndarray:
    """Harrell's C with pairs weighted by 1 / G² at the event (Uno et al., Stat Med 2011).

    So the censoring of these patients does not decide which pairs count. With ``tau``, only events
    before it do; it should lie where G is not small.
    """
    counted = outcomes.event & (outcomes.time < (np.inf if tau is None else tau))
    if weights is None:
        require_known(censoring, outcomes.time[counted])
        value = uno_c(outcomes, risk, censoring, _once(outcomes), tau)
        before = "" if tau is None else f" before {tau:g}"
        return _defined(value, f"No event{before} comes before")
    risk, weights = checked_risk(outcomes, risk), checked_weights(outcomes, weights)
    inverse = _inverse(censoring, outcomes.time, counted)
    return _concordance(outcomes, risk, inverse**2, weights)


def _concordance(
    outcomes: Outcomes, risk: np.ndarray, event_weights: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """(R,) share of pairs in the right order, with the (n,) weight of the event of each."""
    concordant, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    defined = np.isfinite(_totals(weights, event_weights))
    events = np.flatnonzero(event_weights > 0)
    for rows in np.array_split(events, 1 + len(events) // _EVENTS):
        time = outcomes.time[rows, None]
        later = (outcomes.time > time) | ((outcomes.time == time) & ~outcomes.event)
        gap = risk[rows, None] - risk  # (rows, n)
        right = later * ((gap > _TIED) + 0.5 * (np.abs(gap) <= _TIED))
        drawn = weights[:, rows] * event_weights[rows]
        concordant += (drawn * (weights @ right.T)).sum(1)
        pairs += (drawn * (weights @ later.T.astype(float))).sum(1)
    return _divided(concordant, np.where(defined, pairs, np.nan))


def dynamic_auc(
    outcomes: Outcomes,
    risk: np.ndarray,
    times: np.ndarray,
    censoring: Curve,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, float | np.ndarray]:
    """Areas under the ROC curve at horizons, and their mean (Uno et al., JASA 2007).

    At a horizon, patients with an event by then, weighted by 1 / G at their event, are set against
    those whose time is later. The mean weights a horizon with the share of patients who have their
    event between it and the one before (Lambert and Chevret, Stat Methods Med Res 2016).

    Args:
        outcomes: of n patients.
        risk: (n,), or (n, T) with a risk for each horizon. Within 1e-8 of the next risk, equal.
        times: (T,) horizons, increasing.
        censoring: G.
        weights: (R, n) of a bootstrap.

    Returns:
        (T,) and a float; with weights (R, T) and (R,).
    """
    times = checked_times(times)
    if weights is None:
        require_followed(outcomes, times)
        require_events(outcomes, times)
        require_known(censoring, _event_times(outcomes, times))
        areas, means = dynamic_auc(outcomes, risk, times, censoring, _once(outcomes))
        return areas[0], float(means[0])
    weights = checked_weights(outcomes, weights)
    risks = checked_risk(outcomes, risk, times)
    drawn = [_areas(outcomes, risks, times, censoring, some) for some in in_blocks(weights)]
    areas, survival = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    lost = -np.diff(survival, prepend=1.0, axis=1)
    return areas, _divided((areas * lost).sum(1), 1 - survival[:, -1])


def _areas(
    outcomes: Outcomes, risks: np.ndarray, times: np.ndarray, censoring: Curve, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Areas and survival at the horizons, (R, T) each."""
    areas = []
    for risk, horizon in zip(risks.T, times, strict=True):
        later = outcomes.time > horizon
        cases = _inverse(censoring, outcomes.time, outcomes.event & ~later)
        area = weighted_area(risk, np.nan_to_num(cases), later.astype(float), weights, _TIED)
        areas.append(np.where(np.isfinite(_totals(weights, cases)), area, np.nan))
    return np.stack(areas, axis=1), survival_of_resamples(outcomes, times, weights)


def survival_of_resamples(outcomes: Outcomes, times: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(R, T): the Kaplan-Meier curve of each resample at the horizons."""
    order = np.argsort(outcomes.time, kind="stable")
    time, drawn = outcomes.time[order], weights[:, order]
    first = np.flatnonzero(np.r_[True, np.diff(time) > 0])
    everyone, events = (
        np.add.reduceat(some, first, axis=1) for some in (drawn, drawn * outcomes.event[order])
    )
    at_risk = np.cumsum(everyone[:, ::-1], axis=1)[:, ::-1]
    share = np.divide(events, at_risk, out=np.zeros_like(events), where=at_risk > 0)
    curve = np.cumprod(np.c_[np.ones(len(weights)), 1 - share], axis=1)
    return curve[:, np.searchsorted(time[first], times, side="right")]


def brier(
    outcomes: Outcomes,
    survival: np.ndarray,
    times: np.ndarray,
    censoring: Curve,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Mean squared error of (n, T) predicted survival at (T,) horizons: (T,), or (R, T).

    Patients with an event by the horizon, of whom 0 was to be predicted, are weighted by 1 / G at
    their event; those whose time is later, and 1 was, by 1 / G at the horizon (Graf et al., Stat
    Med 1999). Patients censored before it count only in the number that the sum is divided by.
    """
    times = checked_times(times)
    if weights is None:
        require_followed(outcomes, times)
        require_known(censoring, np.r_[_event_times(outcomes, times), times])
        return brier(outcomes, survival, times, censoring, _once(outcomes))[0]
    weights = checked_weights(outcomes, weights)
    survival = checked_survival(outcomes, survival, times)
    later = outcomes.time[:, None] > times  # (n, T)
    cases = outcomes.event[:, None] & ~later
    inverse = _inverse(censoring, np.broadcast_to(outcomes.time[:, None], cases.shape), cases)
    inverse += _inverse(censoring, np.broadcast_to(times, later.shape), later)
    followed = weights @ later > 0
    total = _totals(weights, inverse * (survival - later) ** 2)
    return np.where(followed, _divided(total, weights.sum(1, keepdims=True)), np.nan)


def integrated_brier(
    outcomes: Outcomes,
    survival: np.ndarray,
    times: np.ndarray,
    censoring: Curve,
    weights: np.ndarray | None = None,
) -> float | np.ndarray:
    """Mean of :func:`brier` from the first horizon to the last, by trapezoids: float or (R,)."""
    times = checked_times(times)
    if len(times) < 2:
        raise ValueError("The integrated Brier score needs two horizons.")
    score = over_horizons(brier(outcomes, survival, times, censoring, weights), times)
    return float(score) if weights is None else score


def over_horizons(scores: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Mean of (..., T) scores from the first of (T,) times to the last, by trapezoids: (...)."""
    widths = np.diff(times) / (times[-1] - times[0])
    return ((scores[..., 1:] + scores[..., :-1]) / 2) @ widths


def _inverse(censoring: Curve, times: np.ndarray, needed: np.ndarray) -> np.ndarray:
    """1 / G at the needed times, 0 elsewhere; NaN where G is zero or unknown. All of one shape."""
    share = censoring.at(times[needed])
    inverse = np.zeros(times.shape)
    inverse[needed] = 1 / np.where(share > 0, share, np.nan)
    return inverse


def _totals(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """weights @ values; NaN only for resamples that drew a patient whose value is NaN."""
    drawn = weights @ np.isnan(values) > 0
    return np.where(drawn, np.nan, weights @ np.nan_to_num(values))


def _divided(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(count > 0, total / count, np.nan)


def _once(outcomes: Outcomes) -> np.ndarray:
    return np.ones((1, len(outcomes)))


def _event_times(outcomes: Outcomes, times: np.ndarray) -> np.ndarray:
    """Of the events by the last horizon."""
    return outcomes.time[outcomes.event & (outcomes.time <= times[-1])]


def _defined(values: np.ndarray, what: str) -> float:
    if np.isnan(values[0]):
        raise ValueError(f"{what} the last time of another patient, so no pair is comparable.")
    return float(values[0])
