"""Net benefit: what acting on predictions is worth, against acting on all patients or on none.

Whoever acts from a probability p on says that one missed patient is as bad as (1 − p) / p patients
who are treated for nothing. At this threshold the net benefit is the share of patients who are
rightly treated, minus the share of those treated for nothing times p / (1 − p) (Vickers and Elkin,
Med Decis Making 2006). Of times to an event, Kaplan–Meier curves give the shares (Vickers et al.,
BMC Med Inform Decis Mak 2008).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gimp_fast.evaluation.intervals import Estimate, estimate
from gimp_fast.evaluation.kaplan_meier import Outcomes
from gimp_fast.evaluation.rates import in_blocks
from gimp_fast.evaluation.survival import survival_of_resamples

THRESHOLDS = np.arange(1, 50) / 50  # 0.02 … 0.98


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit at thresholds; that of treating none is 0.

    Attributes:
        thresholds: (P,) probabilities from which on a patient is treated.
        model: estimate at each; None where it is not defined.
        gain: (P,) of the model minus the better of treating all and none, on the same resamples.
        treat_all: (P,) of treating every patient.
        treated: (P,) share of patients whom the model would treat.
    """

    thresholds: np.ndarray
    model: tuple[Estimate | None, ...]
    gain: tuple[Estimate | None, ...]
    treat_all: np.ndarray
    treated: np.ndarray


def net_benefit(
    probability: np.ndarray, truth: np.ndarray, thresholds: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """(R, P) net benefit of treating the patients whose probability is a threshold or more.

    Args:
        probability: (n,) of the event.
        truth: (n,) bool, who has it.
        thresholds: (P,), above 0 and below 1.
        weights: (R, n) of a bootstrap.
    """
    odds = _odds(thresholds)
    treated = probability[:, None] >= thresholds  # (n, P)
    gain = treated * (truth[:, None] - ~truth[:, None] * odds)
    return weights @ gain / weights.sum(1, keepdims=True)


def net_benefit_at(
    outcomes: Outcomes,
    probability: np.ndarray,
    horizon: float,
    thresholds: np.ndarray,
    weights: np.ndarray,
) -> np.ndarray:
    """As :func:`net_benefit`, of the event by a horizon; NaN where nobody treated was followed.

    ``probability`` is (n,), 1 minus the predicted survival at the horizon.
    """
    odds, total = _odds(thresholds), weights.sum(1)
    found = np.empty((len(weights), len(thresholds)))
    treated = share = died = None
    for place, threshold in enumerate(thresholds):
        above = probability >= threshold
        if treated is None or (above != treated).any():  # else the last answer is this one's too
            treated, drawn = above, weights * above
            share, died = drawn.sum(1) / total, _died_by(outcomes, horizon, drawn)
        worth = (died - (1 - died) * odds[place]) * share
        found[:, place] = np.where(share > 0, worth, 0.0)
    return found


def _died_by(outcomes: Outcomes, horizon: float, weights: np.ndarray) -> np.ndarray:
    """(R,) share with the event by the horizon; NaN where all left before it without one."""
    survival = survival_of_resamples(outcomes, np.array([horizon]), weights)[:, 0]
    followed = weights @ (outcomes.time >= horizon) > 0
    return np.where(followed | (survival <= 0), 1 - survival, np.nan)


def decision_curve(
    probability: np.ndarray,
    truth: np.ndarray,
    weights: np.ndarray,
    thresholds: np.ndarray = THRESHOLDS,
) -> DecisionCurve:
    """Of n patients, with 95 % intervals over bootstrap weights (R, n)."""
    truth = np.asarray(truth, bool)

    def benefit(treated: np.ndarray, some: np.ndarray) -> np.ndarray:
        return net_benefit(treated, truth, thresholds, some)

    return _curve(benefit, probability, weights, thresholds)


def decision_curve_at(
    outcomes: Outcomes,
    probability: np.ndarray,
    horizon: float,
    weights: np.ndarray,
    thresholds: np.ndarray = THRESHOLDS,
) -> DecisionCurve:
    """Of the event by a horizon; see :func:`net_benefit_at` and :func:`decision_curve`.

    Raises:
        ValueError: nobody was followed to the horizon.
    """

    def benefit(treated: np.ndarray, some: np.ndarray) -> np.ndarray:
        return net_benefit_at(outcomes, treated, horizon, thresholds, some)

    if np.isnan(benefit(np.ones(len(outcomes)), np.ones((1, len(outcomes))))).any():
        raise ValueError(f"nobody was followed until {horizon:g}")
    return _curve(benefit, probability, weights, thresholds)


def _curve(
    benefit: Callable[[np.ndarray, np.ndarray], np.ndarray],
    probability: np.ndarray,
    weights: np.ndarray,
    thresholds: np.ndarray,
) -> DecisionCurve:
    """``benefit`` gives (R, P) of probabilities (n,) and weights (R, n)."""
    everyone, once = np.ones(len(probability)), np.ones((1, len(probability)))
    value, of_all = benefit(probability, once)[0], benefit(everyone, once)[0]
    model = np.concatenate([benefit(probability, some) for some in in_blocks(weights)])
    better = np.concatenate([benefit(everyone, some) for some in in_blocks(weights)]).clip(0)
    treated = (probability[:, None] >= thresholds).mean(0)
    gain = _estimates(value - of_all.clip(0), model - better)
    return DecisionCurve(thresholds, _estimates(value, model), gain, of_all, treated)


def _estimates(values: np.ndarray, draws: np.ndarray) -> tuple[Estimate | None, ...]:
    pairs = zip(values.tolist(), draws.T, strict=True)
    return tuple(estimate(value, of_threshold) for value, of_threshold in pairs)


def _odds(thresholds: np.ndarray) -> np.ndarray:
    thresholds = np.asarray(thresholds, np.float64)
    if not ((thresholds > 0) & (thresholds < 1)).all():
        raise ValueError(f"Thresholds must be above 0 and below 1; found {thresholds.tolist()}.")
    return thresholds / (1 - thresholds)
