"""Decision curves of all classes or horizons of a model, or why one of them has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gimp_fast.evaluation.decision_curve import DecisionCurve, decision_curve, decision_curve_at
from gimp_fast.evaluation.kaplan_meier import Outcomes


@dataclass(frozen=True)
class NamedCurve:
    """A decision curve, of a class or a horizon; None with a reason.

    Attributes:
        name: of its files.
        title: of its figure.
        event: what the probability is of.
    """

    name: str
    title: str
    event: str
    curve: DecisionCurve | None = None
    reason: str = ""


def curves_of_classes(
    probabilities: np.ndarray, label: np.ndarray, classes: Sequence[str], weights: np.ndarray
) -> tuple[NamedCurve, ...]:
    """Of the second of two classes, or of each of several against the rest.

    Args:
        probabilities: (n, K), of the classes.
        label: (n,) int, the true class.
        classes: K names.
        weights: (R, n) of a bootstrap.
    """
    found = []
    for place, name in list(enumerate(classes))[len(classes) == 2 :]:
        truth, curve, reason = label == place, None, ""
        if truth.all() or not truth.any():
            reason = "it needs patients with and without the class."
        else:
            curve = decision_curve(probabilities[:, place], truth, weights)
        title, event = f"Net benefit: {name}", f"“{name}”"
        found.append(NamedCurve(f"decision_{place}", title, event, curve, reason))
    return tuple(found)


def curves_at_horizons(
    outcomes: Outcomes,
    survival: np.ndarray,
    horizons: Sequence[tuple[str, float]],
    weights: np.ndarray,
) -> tuple[NamedCurve, ...]:
    """One for each horizon.

    Args:
        outcomes: of n patients.
        survival: (n, T), as predicted for the horizons; it is cut to 0 … 1.
        horizons: T of them, each in words, as ``"3 years"``, and as a time.
        weights: (R, n) of a bootstrap.
    """
    found, events = [], 1 - survival.clip(0, 1)
    for place, (text, horizon) in enumerate(horizons):
        curve, reason = None, ""
        try:
            curve = decision_curve_at(outcomes, events[:, place], horizon, weights)
        except ValueError as error:
            reason = f"{error}."
        title, event = f"Net benefit at {text}", f"the event by {text}"
        found.append(NamedCurve(f"decision_{place + 1}", title, event, curve, reason))
    return tuple(found)
