"""Cox's model with a ridge penalty: to survival what logistic regression is to classes.

Ties are Breslow's. Newton's method, with halved steps; the penalised likelihood is concave, so it
has one maximum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gimp_fast.evaluation.kaplan_meier import Outcomes

_STEPS, _TOLERANCE = 50, 1e-16


@dataclass(frozen=True)
class RidgeCox:
    """A fitted model; ``risk`` is the logarithm of the hazard ratio to a mean patient.

    ``mean`` and ``sd`` standardise features; a feature that never varies has no effect.
    """

    mean: np.ndarray  # (d,)
    sd: np.ndarray  # (d,)
    coefficients: np.ndarray  # (d,), of standardised features

    def risk(self, features: np.ndarray) -> np.ndarray:
        """(n, d) -> (n,)."""
        return ((features - self.mean) / self.sd) @ self.coefficients


def fit_ridge_cox(features: np.ndarray, outcomes: Outcomes, strength: float) -> RidgeCox:
    """The maximum of log partial likelihood − strength / 2 · Σ coefficient².

    Args:
        features: (n, d), standardised here.
        outcomes: of the same patients, with one event or more.
        strength: of the penalty, above 0.

    Raises:
        ValueError: no event, or a strength that is not above 0.
    """
    if not outcomes.event.any():
        raise ValueError(f"found no event among {len(features)} patients; expected one or more")
    if not strength > 0:
        raise ValueError(f"strength: found {strength}; expected a number above 0")
    x = np.asarray(features, np.float64)
    mean, sd = x.mean(0), x.std(0)
    sd = np.where(sd > 0, sd, 1.0)
    order = np.argsort(-outcomes.time, kind="stable")  # the risk set of a time is a beginning
    z, time, event = ((x - mean) / sd)[order], outcomes.time[order], outcomes.event[order]
    directions = None
    if z.shape[1] > len(z):  # the maximum is in the span of the patients: look for it there
        _, _, directions = np.linalg.svd(z, full_matrices=False)
        z = z @ directions.T
    ends = np.searchsorted(-time, -time, side="right") - 1  # of the risk set of each patient
    coefficients, value = np.zeros(z.shape[1]), -np.inf
    step = np.zeros_like(coefficients)
    for _ in range(_STEPS):
        size = 1.0
        while True:
            trial = coefficients + size * step
            found = _likelihood(z, event, ends, trial, strength)
            if found >= value - 1e-12 * abs(value) or size < 1e-6:
                break
            size /= 2
        coefficients, gain, value = trial, found - value, found
        gradient, hessian = _derivatives(z, event, ends, coefficients, strength)
        step = np.linalg.solve(hessian, gradient)
        if abs(gradient @ step) < _TOLERANCE or (gain == 0 and size < 1e-6):
            break
    return RidgeCox(mean, sd, coefficients if directions is None else coefficients @ directions)


def _likelihood(z, event, ends, coefficients, strength) -> float:
    risk = z @ coefficients
    log_sums = np.logaddexp.accumulate(risk)[ends]
    return float((risk - log_sums)[event].sum() - strength / 2 * coefficients @ coefficients)


def _derivatives(z, event, ends, coefficients, strength) -> tuple[np.ndarray, np.ndarray]:
    """Gradient (d,) and negative Hessian (d, d)."""
    risk = z @ coefficients
    weights = np.exp(risk - risk.max())
    sums = np.cumsum(weights)[ends]  # (n,)
    means = np.cumsum(weights[:, None] * z, axis=0)[ends] / sums[:, None]
    # By how much each patient counts, over all risk sets that hold them.
    inverse = np.bincount(ends[event], 1 / sums[event], minlength=len(z))
    counted = weights * np.cumsum(inverse[::-1])[::-1]
    gradient = (z - means)[event].sum(0) - strength * coefficients
    of_events = means[event]
    hessian = z.T @ (counted[:, None] * z) - of_events.T @ of_events
    return gradient, hessian + strength * np.eye(len(coefficients))
