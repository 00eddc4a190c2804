"""The panels of decision curves: whether acting on the predictions is worth more than not."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from gimp_fast.evaluation.decision_curve import DecisionCurve
from gimp_fast.evaluation.intervals import patient_weights
from gimp_fast.evaluation.named_curves import NamedCurve, curves_of_classes
from gimp_fast.pages import style
from gimp_fast.report.panels import Panel
from gimp_fast.runs.records import Run

_RESAMPLES = 1000
MOST_CLASSES = 6  # with a figure each


def class_decision_panels(run: Run) -> list[Panel]:
    """Of the second of two classes, or of each of a few against the rest."""
    test, classes = run.predictions.of("test"), run.metrics.cohort.classes
    if not len(test):
        return [Panel("decision", "Net benefit", "Left out: predictions.csv has no test case.")]
    if len(classes) > MOST_CLASSES:
        reason = f"the run has {len(classes)} classes, and at most {MOST_CLASSES} have a curve each"
        return [Panel("decision", "Net benefit", f"Left out: {reason}.")]
    curves = curves_of_classes(test.probabilities, test.label, classes, weights_of_test(len(test)))
    return [decision_panel(named, f"{len(test)} test cases") for named in curves]


def weights_of_test(patients: int) -> np.ndarray:
    """(1000, patients) of the bootstrap, the same for every page."""
    return patient_weights(patients, _RESAMPLES)


def decision_panel(named: NamedCurve, patients: str) -> Panel:
    """A decision curve; ``patients`` says how many it is of."""
    if named.curve is None:
        return Panel(named.name, named.title, f"Left out: {named.reason}")
    curve = named.curve
    better = sum(one is not None and one.low > 0 for one in curve.gain)
    caption = (
        f"{patients}. Net benefit of treating whoever has a probability of {named.event}, as "
        "predicted and not scaled, of the threshold or more: the share rightly treated, minus a "
        "penalty for those treated for nothing, which rises with the threshold. On the same "
        f"resamples, the model is above both others, with its 95 % interval, at {better} of "
        f"{len(curve.gain)} thresholds."
    )
    middle = len(curve.thresholds) // 2
    one = curve.model[middle]
    value = "–" if one is None else f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"
    alt = f"{named.title}; at a threshold of {curve.thresholds[middle]:g}: "
    alt += f"model {value}, all {curve.treat_all[middle]:.3f}, none 0"
    return Panel(named.name, named.title, caption, alt, _draw(curve))


def _draw(curve: DecisionCurve) -> Figure:
    """Net benefit of the model with its band, of treating all, and of treating none."""
    figure = style.new_figure(height=3.6)
    axes = figure.add_subplot()
    known = [place for place, found in enumerate(curve.model) if found is not None]
    at = curve.thresholds[known]
    value, low, high = (
        np.array([getattr(curve.model[place], end) for place in known])
        for end in ("value", "low", "high")
    )
    axes.fill_between(at, low, high, color=style.ACCENT, alpha=0.15, linewidth=0)
    axes.plot(at, value, color=style.ACCENT, label="model, 95 % band")
    dashed, dotted = (0, (5, 2)), (0, (2, 3))
    axes.plot(
        curve.thresholds, curve.treat_all, color=style.VAL, lw=1.2, ls=dashed, label="treat all"
    )
    axes.plot([0, 1], [0, 0], color=style.INK, lw=0.9, ls=dotted, label="treat none")
    best = max(float(curve.treat_all[0]), float(high.max(initial=0.0)), 0.02)
    axes.set(xlim=(0, 1), ylim=(-0.35 * best, 1.08 * best))
    axes.set(xlabel="Threshold probability", ylabel="Net benefit")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, borderaxespad=0.2)
    return figure
