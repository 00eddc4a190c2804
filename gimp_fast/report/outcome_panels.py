"""What the page shows of a target that is no class: figures of the test set, and its cases."""

from __future__ import annotations

from typing import Any

import numpy as np

from gimp_fast.evaluation.kaplan_meier import Outcomes, calibration, logrank
from gimp_fast.evaluation.named_curves import curves_at_horizons
from gimp_fast.report import outcome_figures
from gimp_fast.report.case_table import PRINTED, links_of_cases
from gimp_fast.report.decision_panel import decision_panel, weights_of_test
from gimp_fast.report.panels import Panel
from gimp_fast.runs.outcome_predictions import OutcomePredictions
from gimp_fast.runs.records import Run, TargetSummary
from gimp_fast.runs.several_predictions import SeveralPredictions

OUTCOME_TITLES = {
    "c_index": "C-index",
    "uno_c": "Uno's C",
    "mean_auc": "Time-dependent AUC",
    "integrated_brier": "Integrated Brier score",
    "correlation": "Correlation",
    "r_squared": "R²",
    "mean_absolute_error": "Mean absolute error",
}
_GROUPS = 5  # of predicted survival, whose calibration is drawn
_FEW = 20  # patients of a group below which the page warns of chance


def outcome_panels(run: Run) -> list[Panel]:
    """The figures of the test set."""
    test, target = run.predictions.of("test"), run.metrics.target
    if target.kind == "survival":
        return [
            _kaplan_meier(test, target),
            *_calibrations(test, target),
            *_decisions(test, target),
        ]
    return [_scatter(test)]


def _kaplan_meier(test: OutcomePredictions, target: TargetSummary) -> Panel:
    name, title = "kaplan_meier", "Survival by predicted risk"
    if not len(test):
        return Panel(name, title, "Left out: predictions.csv has no test case.")
    outcomes, risk = _outcomes(test), test.predicted["risk"]
    rows = {"low risk": risk <= target.risk_cut, "high risk": risk > target.risk_cut}
    groups = {key: outcomes.chosen(chosen) for key, chosen in rows.items() if chosen.any()}
    caption = (
        f"{len(test)} test patients in two groups, cut at the median risk of the training "
        "patients. Bands are 95 % intervals, ticks are censored patients."
    )
    if len(groups) < 2:
        caption += f" All of them are of {next(iter(groups))}."
    else:
        try:
            caption += f" Log-rank test: p = {logrank(*groups.values()):.3g}."
        except ValueError:
            caption += " The log-rank test needs an event while both groups are at risk."
    alt = "Kaplan–Meier curves. " + "; ".join(
        f"{key}: {int(group.event.sum())} of {len(group)} with the event"
        for key, group in groups.items()
    )
    drawing = outcome_figures.survival_curves(groups, target.unit)
    return Panel(name, title, caption, alt, drawing)


def _calibrations(test: OutcomePredictions, target: TargetSummary) -> list[Panel]:
    """One for each horizon that test patients reach."""
    panels, outcomes = [], _outcomes(test) if len(test) else None
    pairs = zip(target.horizons, target.prediction_columns[1:], strict=True)
    for number, (horizon, column) in enumerate(pairs, start=1):
        text = f"{horizon:g} {target.unit}"
        name, title = f"calibration_{number}", f"Calibration at {text}"
        if outcomes is None or horizon >= outcomes.time.max():
            reason = f"no test patient was followed for longer than {text}."
            panels.append(Panel(name, title, f"Left out: {reason}"))
            continue
        groups = calibration(outcomes, test.predicted[column].clip(0, 1), horizon, _GROUPS)
        caption = (
            f"{len(test)} test patients in {len(groups.count)} groups of predicted survival; "
            "lines are 95 % intervals."
        )
        if groups.count.min() < _FEW:
            caption += " The groups are small: expect points far from the line by chance."
        points = zip(groups.predicted, groups.observed, strict=True)
        alt = f"{title}. " + "; ".join(f"predicted {p:.2f}, observed {o:.2f}" for p, o in points)
        drawing = outcome_figures.survival_calibration(groups, text)
        panels.append(Panel(name, title, caption, alt, drawing))
    return panels


def _decisions(test: OutcomePredictions, target: TargetSummary) -> list[Panel]:
    """One for each horizon."""
    if not len(test):
        return [Panel("decision", "Net benefit", "Left out: predictions.csv has no test case.")]
    horizons = [(f"{horizon:g} {target.unit}", horizon) for horizon in target.horizons]
    survival = np.array([test.predicted[name] for name in target.prediction_columns[1:]]).T
    curves = curves_at_horizons(_outcomes(test), survival, horizons, weights_of_test(len(test)))
    return [decision_panel(named, f"{len(test)} test patients") for named in curves]


def _scatter(test: OutcomePredictions) -> Panel:
    name, title = "predicted", "Predicted and true values"
    if not len(test):
        return Panel(name, title, "Left out: predictions.csv has no test case.")
    drawing = outcome_figures.predicted_against_true(
        test.predicted["prediction"], test.truth["truth"]
    )
    return Panel(name, title, f"{len(test)} test patients.", f"{title} of the test set", drawing)


def _outcomes(predictions: OutcomePredictions) -> Outcomes:
    return Outcomes(predictions.truth["time"], predictions.truth["event"] > 0)


def outcome_cases(run: Run) -> dict[str, Any]:
    """What the page's templates need for the table of cases, of numbers or of several targets."""
    predictions = run.predictions
    columns = predictions.columns()
    if isinstance(predictions, SeveralPredictions):
        order = np.argsort(predictions.split != "test", kind="stable")
        sorting = "Test patients come first. What is not known is empty."
        pairs = [
            (name, column) for name, of in predictions.of_all.items() for column in of.columns()
        ]
        titles = [f"{name}: {column.replace('_', ' ')}" for name, column in pairs]
    else:
        titles = [_words(name) for name in columns]
        highest = next(iter(predictions.predicted.values()))
        order = np.lexsort((-highest, predictions.split != "test"))
        sorting = "Test patients come first, the highest prediction on top."
    maps = links_of_cases(run)
    cases = [
        {
            "case_id": str(predictions.case_id[row]),
            "part": str(predictions.split[row]),
            "values": [_cell(column[row]) for column in columns.values()],
            "maps": maps.get(str(predictions.case_id[row]), []),
        }
        for row in order.tolist()
    ]
    return {
        "printed_cases": PRINTED,
        "outcome_cases": cases,
        "outcome_columns": titles,
        "sorting": sorting,
        "pictures": [],
    }


def _cell(value: Any) -> str:
    """A class as it is, a number in four digits; nothing for one that is not known."""
    if isinstance(value, str):
        return value
    return "" if np.isnan(value) else f"{value:.4g}"


def _words(column: str) -> str:
    """``survival_365`` -> ``Survival 365``."""
    return column.replace("_", " ").capitalize()
