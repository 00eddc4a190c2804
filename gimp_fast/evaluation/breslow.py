"""From the log-risks of a Cox model to survival: Breslow's baseline hazard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gimp_fast.evaluation.kaplan_meier import Outcomes


@dataclass(frozen=True)
class Baseline:
    """What a patient of log-risk zero has to expect.

    Attributes:
        times: (K,) the distinct times of the training patients.
        log_hazard: (K,) logarithm of the cumulative hazard from each of them on; −inf before the
            first event. Its logarithm, because risks of a network can be too large for exp.
    """

    times: np.ndarray
    log_hazard: np.ndarray

    def survival(self, log_risk: np.ndarray, times: np.ndarray) -> np.ndarray:
        """(n, T): the probability that patients of these (n,) log-risks outlast (T,) horizons.

        Raises:
            ValueError: a horizon is after the last training patient, where nothing is known.
        """
        log_risk, times = np.asarray(log_risk, np.float64), np.asarray(times, np.float64)
        if (times > self.times[-1]).any():
            raise ValueError(
                f"Horizon {times.max():g} is after the last time of training, {self.times[-1]:g}."
            )
        index = np.searchsorted(self.times, times, side="right")
        log_hazard = np.r_[-np.inf, self.log_hazard][index]
        with np.errstate(over="ignore"):  # exp(−inf) is the 0 that it should be
            return np.exp(-np.exp(log_risk[:, None] + log_hazard))


def breslow(outcomes: Outcomes, log_risk: np.ndarray) -> Baseline:
    """The baseline of training patients with these (n,) log-risks.

    At each time the hazard grows by the number of events, divided by the sum of the risks of the
    patients at risk (Breslow, JRSS B 1972).
    """
    log_risk = np.asarray(log_risk, np.float64)
    if log_risk.shape != (len(outcomes),) or not np.isfinite(log_risk).all():
        raise ValueError(f"Log-risks must be {len(outcomes)} finite numbers.")
    if not outcomes.event.any():
        raise ValueError("A baseline hazard needs an event; all patients are censored.")
    order = np.argsort(outcomes.time, kind="stable")
    log_at_risk = np.logaddexp.accumulate(log_risk[order][::-1])[::-1]
    times, first, code = np.unique(outcomes.time[order], return_index=True, return_inverse=True)
    events = np.bincount(code, outcomes.event[order])
    with np.errstate(divide="ignore"):  # no event: no step
        steps = np.log(events) - log_at_risk[first]
    return Baseline(times, np.logaddexp.accumulate(steps))
