"""What the survival scores refuse: input of the wrong shape, and scores that are not defined."""

from __future__ import annotations

import numpy as np

from gimp_fast.evaluation.kaplan_meier import Curve, Outcomes


def require_known(censoring: Curve, times: np.ndarray) -> None:
    share = censoring.at(times)
    for wrong, what in ((share == 0, "zero"), (np.isnan(share), "not known")):
        if wrong.any():
            raise ValueError(
                f"The censoring distribution is {what} at time {times[wrong][0]:g}, where it is "
                f"needed; its last patient has time {censoring.times[-1]:g}."
            )


def require_followed(outcomes: Outcomes, times: np.ndarray) -> None:
    if times[-1] >= (last := outcomes.time.max()):
        raise ValueError(f"Horizon {times[-1]:g} is not before the last time, {last:g}.")


def require_events(outcomes: Outcomes, times: np.ndarray) -> None:
    if not (outcomes.event & (outcomes.time <= times[0])).any():
        raise ValueError(f"No event was observed by horizon {times[0]:g}.")


def checked_times(times: np.ndarray) -> np.ndarray:
    times = np.asarray(times, np.float64)
    if times.ndim != 1 or not len(times) or not np.isfinite(times).all():
        raise ValueError("Horizons must be one or more finite numbers.")
    if (np.diff(times, prepend=0.0) <= 0).any():
        raise ValueError(f"Horizons must be > 0 and increase; found {times.tolist()}.")
    return times


def checked_weights(outcomes: Outcomes, weights: np.ndarray) -> np.ndarray:
    weights = np.asarray(weights, np.float64)
    if weights.ndim != 2 or weights.shape[1] != len(outcomes):
        raise ValueError(f"Weights are {weights.shape}; expected (resamples, {len(outcomes)}).")
    return weights


def checked_risk(
    outcomes: Outcomes, risk: np.ndarray, times: np.ndarray | None = None
) -> np.ndarray:
    """(n,); with horizons (n, T)."""
    risk = np.asarray(risk, np.float64)
    shapes = [(len(outcomes),)] + ([(len(outcomes), len(times))] if times is not None else [])
    if risk.shape not in shapes or not np.isfinite(risk).all():
        expected = " or ".join(map(str, shapes))
        raise ValueError(f"Risks must be finite, of shape {expected}; found {risk.shape}.")
    if times is None or risk.ndim == 2:
        return risk
    return np.broadcast_to(risk[:, None], shapes[-1])


def checked_survival(outcomes: Outcomes, survival: np.ndarray, times: np.ndarray) -> np.ndarray:
    survival, expected = np.asarray(survival, np.float64), (len(outcomes), len(times))
    if survival.shape != expected or not ((survival >= 0) & (survival <= 1)).all():
        raise ValueError(
            f"Survival must be from 0 to 1, of shape {expected}; found {survival.shape}."
        )
    return survival
