"""Decision curves in the report: they are there, and their numbers are those of the evaluation."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from builders.outcomes import longest_censored, random_survival

from gimp_fast.evaluation.decision_curve import THRESHOLDS, decision_curve, decision_curve_at
from gimp_fast.report.decision_panel import MOST_CLASSES, class_decision_panels, weights_of_test
from gimp_fast.report.outcome_panels import outcome_panels
from gimp_fast.runs.outcome_predictions import OutcomePredictions
from gimp_fast.runs.records import TargetSummary, open_run


def lines(panel) -> dict[str, np.ndarray]:
    """Words of the legend -> the heights of that line."""
    return {line.get_label(): line.get_ydata() for line in panel.figure.axes[0].get_lines()}


def check(panel, curve) -> None:
    """The figure and its caption show the numbers of a curve."""
    drawn = lines(panel)
    np.testing.assert_array_equal(drawn["treat all"], curve.treat_all)
    values = [one.value for one in curve.model if one]
    np.testing.assert_array_equal(drawn["model, 95 % band"], values)
    better = sum(one is not None and one.low > 0 for one in curve.gain)
    assert f"at {better} of {len(THRESHOLDS)} thresholds" in panel.caption
    assert "as predicted and not scaled" in panel.caption


@pytest.mark.parametrize(("classes", "first"), [("ab", 1), ("abc", 0)], ids=["two", "three"])
def test_classes_have_the_numbers_of_the_evaluation(make_run, classes, first):
    run = open_run(make_run(classes=tuple(classes), stages=("finetune",)))
    test = run.predictions.of("test")
    panels = class_decision_panels(run)
    assert [panel.title for panel in panels] == [f"Net benefit: {name}" for name in classes[first:]]
    for place, panel in enumerate(panels, start=first):
        truth, weights = test.label == place, weights_of_test(len(test))
        check(panel, decision_curve(test.probabilities[:, place], truth, weights))
        assert panel.caption.startswith(f"{len(test)} test cases. ")


def test_more_classes_than_a_page_shows_are_left_out(make_run):
    classes = tuple(f"class {place}" for place in range(MOST_CLASSES + 1))
    (panel,) = class_decision_panels(open_run(make_run(classes=classes, stages=("finetune",))))
    assert panel.figure is None
    assert f"the run has {MOST_CLASSES + 1} classes" in panel.caption


def survival_run(n: int) -> tuple[SimpleNamespace, np.ndarray]:
    """A run of n test patients, whose last horizon nobody reaches, and their survival."""
    outcomes, horizons = longest_censored(max(n, 1)), (3.0, 1e4)
    survival = random_survival(max(n, 1), np.array(horizons))[:n]
    names = ("risk", "survival_3", "survival_10000")
    predicted = dict(zip(names, (-survival[:, 0], *survival.T), strict=True))
    truth = {"time": outcomes.time[:n], "event": outcomes.event[:n].astype(float)}
    ids = np.array([f"P{place}" for place in range(n)], str)
    test = OutcomePredictions(ids, np.full(n, "test"), truth, predicted)
    target = TargetSummary(
        name="os", kind="survival", prediction_columns=names, unit="<years>", horizons=horizons
    )
    return SimpleNamespace(predictions=test, metrics=SimpleNamespace(target=target)), survival


def test_horizons_have_the_numbers_of_the_evaluation():
    run, survival = survival_run(41)
    first, second = (p for p in outcome_panels(run) if p.name.startswith("decision"))
    weights = weights_of_test(41)
    check(first, decision_curve_at(longest_censored(41), 1 - survival[:, 0], 3.0, weights))
    assert first.title == "Net benefit at 3 <years>"
    assert second.figure is None
    assert second.caption.startswith("Left out: nobody was followed until 10000")


def test_without_test_patients_the_reason_is_said(make_run):
    run, _ = survival_run(0)
    of_classes = class_decision_panels(open_run(make_run(patients=8)))
    for panels in (outcome_panels(run), of_classes):
        assert panels[-1].title == "Net benefit"
        assert panels[-1].caption == "Left out: predictions.csv has no test case."
