"""Models on new patients: scores beside the own test patients, and what is left out."""

from __future__ import annotations

import html
import shutil
from dataclasses import replace

import numpy as np
import pytest
from builders.runs import QUICK, train_run
from builders.validations import QUICK_VALIDATION as OPTIONS

import gimp_fast
from gimp_fast.data import open_cohort
from gimp_fast.errors import GimpError
from gimp_fast.evaluation.calibration import brier
from gimp_fast.evaluation.rates import cross_entropy, rates
from gimp_fast.evaluation.temperature import at_temperature, fit_temperature
from gimp_fast.external import validate_model, validating
from gimp_fast.external.own_test import recorded_by
from gimp_fast.external.result import Temperatures
from gimp_fast.inference import export_ensemble, export_model
from gimp_fast.runs.records import Run

NEW = 48  # of 80 patients; 32 have the names of patients of training or validation
SCORES = {
    "class": ["accuracy", "balanced_accuracy", "auc", "cross_entropy"],
    "survival": ["c_index", "uno_c", "integrated_brier"],
    "regression": ["mean_absolute_error", "correlation"],
}
of_every_kind = pytest.mark.parametrize("kind", SCORES)


@of_every_kind
def test_every_score_has_its_interval_and_its_difference(validated, kind):
    found = validated(kind)
    assert (found.kind, found.patients, len(found.table)) == (kind, NEW, NEW)
    assert list(found.scores) == SCORES[kind]
    score = found.scores[found.main]
    for one in (score.new, score.own, score.difference):
        assert one.low <= one.value <= one.high
    assert score.single is None
    assert score.difference.value == pytest.approx(score.new.value - score.own.value)
    assert (found.own.source, found.own.patients, found.own.also_new) == ("predictions", 8, 8)
    assert any("test patients of the models too" in note for note in found.notes)


@of_every_kind
def test_the_own_scores_are_those_of_the_run(validated, trained, kind):
    found, recorded = validated(kind), Run(trained(kind)).metrics.test
    # Those that weigh with the censoring of training differ.
    for name in set(SCORES[kind]) - {"cross_entropy", "uno_c", "integrated_brier"}:
        assert found.scores[name].own.value == pytest.approx(getattr(recorded, name).value, 1e-4)


def test_the_scores_are_of_the_table(validated):
    found = validated()
    table, names = found.table, ("SYN-A", "SYN-B")
    probabilities = table[[f"prob_{name}" for name in names]].to_numpy(np.float64)
    labels = np.array([names.index(label) for label in table["label"]])
    expected = rates(probabilities, labels) | {
        "cross_entropy": cross_entropy(probabilities, labels)
    }
    for name, score in found.scores.items():
        assert score.new.value == pytest.approx(expected[name], rel=1e-6)
    assert found.counts == {name: int((table["label"] == name).sum()) for name in names}


def test_the_temperature_is_of_the_validation_patients(validated, trained):
    found, val = validated(), recorded_by(gimp_fast.load(trained())).of("val")
    try:
        expected = (fit_temperature(val.probabilities, val.label),)
    except ValueError:
        expected = ()
    assert found.temperatures.values == pytest.approx(expected)
    assert bool(expected) != bool(found.temperatures.reason)
    before, after = found.calibration.before, found.calibration.after
    assert (after is None) == (not expected)
    assert before.cross_entropy.value == pytest.approx(found.scores["cross_entropy"].new.value)


def test_a_planted_temperature_changes_what_it_should(other_folder, trained, monkeypatch):
    monkeypatch.setattr(validating, "temperatures", lambda *of: Temperatures((2.0,), (8,)))
    found = validate_model(trained(), other_folder, OPTIONS)
    table, names = found.table, ("SYN-A", "SYN-B")
    given = table[[f"prob_{name}" for name in names]].to_numpy(np.float64)
    scaled = table[[f"scaled_{name}" for name in names]].to_numpy(np.float64)
    np.testing.assert_allclose(scaled, at_temperature(given, 2.0), atol=1e-6)
    labels = np.array([names.index(label) for label in table["label"]])
    cal = found.calibration
    assert cal.after.brier.value == pytest.approx(brier(scaled, labels), rel=1e-5)
    change = cal.after.brier.value - cal.before.brier.value
    assert cal.brier_change.value == pytest.approx(change, abs=1e-6)


def test_survival_is_calibrated_at_horizons(validated, trained):
    found = validated("survival")
    horizons = Run(trained("survival")).metrics.target.horizons
    assert [at.horizon for at in found.calibration.horizons] == pytest.approx(list(horizons))
    assert len(found.curves) == len(horizons)
    for at in found.calibration.horizons:
        assert 0 <= at.observed.low <= at.observed.value <= at.observed.high <= 1
        assert at.groups.count.sum() == NEW
    assert found.calibration.before is None


def test_numbers_have_a_line_and_no_decision_curve(validated):
    found = validated("regression")
    table, cal = found.table, found.calibration
    expected = np.polyfit(table["prediction"], table["true_truth"], 1)
    assert (cal.slope.value, cal.intercept.value) == pytest.approx(tuple(expected), rel=1e-4)
    error = (table["prediction"] - table["true_truth"]).mean()
    assert cal.mean_error.value == pytest.approx(error, rel=1e-5)
    assert found.curves == ()
    assert found.counts == {}


@of_every_kind
def test_several_runs_are_averaged_and_compared_one_by_one(validated, kind):
    one, other, both = validated(kind), validated(kind, (1,)), validated(kind, (0, 1))
    assert len(both.models) == 2
    for name, score in both.scores.items():
        mean = (one.scores[name].new.value + other.scores[name].new.value) / 2
        assert score.single.value == pytest.approx(mean, rel=1e-6)
        own = (one.scores[name].own.value + other.scores[name].own.value) / 2
        assert score.own.value == pytest.approx(own, rel=1e-6)
        assert score.difference.value == pytest.approx(mean - own, abs=1e-6)
    column = {"class": "prob_SYN-A", "survival": "risk", "regression": "prediction"}[kind]
    mean = (one.table[column] + other.table[column]) / 2
    np.testing.assert_allclose(both.table[column], mean, rtol=1e-5, atol=1e-6)


def test_an_export_has_recorded_scores_and_no_temperature(
    validated, trained, other_folder, tmp_path
):
    export_model(gimp_fast.load(trained()), tmp_path / "model")
    found, run = validate_model(tmp_path / "model", other_folder, OPTIONS), validated()
    assert found.own.source == "recorded"
    assert found.scores["auc"].new == run.scores["auc"].new
    assert found.scores["auc"].own.value == pytest.approx(run.scores["auc"].own.value, 1e-4)
    assert found.scores["auc"].difference.low < found.scores["auc"].difference.value
    assert found.scores["cross_entropy"].own is None
    assert found.scores["cross_entropy"].difference is None
    assert "is an export" in found.temperatures.reason


def test_an_ensemble_is_its_members(validated, trained, other_folder, tmp_path):
    members = [gimp_fast.load(trained("class", seed)) for seed in (0, 1)]
    export_ensemble(members, tmp_path / "both")
    runs = validated("class", (0, 1))
    for model in (tmp_path / "both", gimp_fast.load(tmp_path / "both")):
        found = validate_model(model, other_folder, OPTIONS)
        assert found.scores["accuracy"].new == runs.scores["accuracy"].new
        assert len(found.models) == 2


def test_known_patients_are_refused(trained, other_folder):
    with pytest.raises(GimpError, match=r"found 32 of 80 patients .* SYNT-00-\d+ \(of the tr") as e:
        validate_model(trained(), other_folder, replace(OPTIONS, exclude_known=False))
    assert "--exclude-known" in str(e.value)


def test_known_patients_are_excluded_and_named(validated, cohort_folder):
    found, cohort = validated(), open_cohort(cohort_folder)
    split = cohort.split(cohort.split_names[0])
    assert set(found.left_out.known) == {*split["train"], *split["val"]}
    assert not set(found.table["case_id"]) & set(found.left_out.known)


def test_nobody_is_left(trained, cohort_folder):
    cohort = open_cohort(cohort_folder)
    cases = cohort.split(cohort.split_names[0])["train"][:3]
    with pytest.raises(GimpError, match=r"found 0 new patients .* 3 patients of training"):
        validate_model(trained(), cohort, OPTIONS, cases=cases)


def unlabelled(cohort, cases):
    cohort._labels.update(dict.fromkeys(cases))
    return cohort


def test_unlabelled_patients_are_counted(trained, other_folder, validated):
    cohort = open_cohort(other_folder)
    hidden = validated().table["case_id"].tolist()[:5]
    found = validate_model(trained(), unlabelled(cohort, hidden), OPTIONS)
    assert (found.left_out.unlabelled, found.patients) == (5, NEW - 5)
    nobody = unlabelled(open_cohort(other_folder), cohort.case_ids)
    with pytest.raises(GimpError, match="found none of 80 patients whose label is known"):
        validate_model(trained(), nobody, OPTIONS)


def test_other_classes_are_refused(trained, other_folder):
    cohort = open_cohort(other_folder)
    cohort.classes = ("SYN-A", "SYN-C")
    with pytest.raises(GimpError, match=r"the class 'SYN-C' \(40\); expected .*SYN-A, SYN-B"):
        validate_model(trained(), cohort, OPTIONS)


def test_classes_in_another_order_are_the_same(trained, other_folder, validated):
    cohort = open_cohort(other_folder)
    cohort.classes = cohort.classes[::-1]
    cohort._labels = {case: 1 - label for case, label in cohort._labels.items()}
    assert validate_model(trained(), cohort, OPTIONS).scores == validated().scores


def test_a_cohort_without_the_target_is_refused(trained, other_folder):
    cohort = open_cohort(other_folder)
    os = cohort.targets.pop("os")
    with pytest.raises(GimpError, match="found the targets burden; expected 'os'"):
        validate_model(trained("survival"), cohort, OPTIONS)
    cohort.targets = {"os": replace(os, unit="months")}
    with pytest.raises(GimpError, match="times of 'os' in months; expected days"):
        validate_model(trained("survival"), cohort, OPTIONS)
    cohort.targets = {"os": replace(os, kind="regression")}
    with pytest.raises(GimpError, match="of the kind regression; expected survival"):
        validate_model(trained("survival"), cohort, OPTIONS)


def test_models_of_different_questions_are_refused(trained, other_folder):
    models = [trained("survival"), trained("regression")]
    with pytest.raises(GimpError, match="found the columns"):
        validate_model(models, other_folder, OPTIONS)
    with pytest.raises(GimpError, match="found no model"):
        validate_model([], other_folder, OPTIONS)


@pytest.mark.parametrize("name", ["resamples", "fewest_hospitals", "fewest_patients"])
def test_impossible_options_are_refused(name):
    with pytest.raises(GimpError, match=f"{name}: found 0; expected"):
        replace(OPTIONS, **{name: 0})


def test_a_damaged_record_of_the_run_is_named(trained, other_folder, tmp_path):
    shutil.copytree(trained(), tmp_path / "run")
    (tmp_path / "run" / "predictions.csv").write_text("case_id\n")
    with pytest.raises(GimpError, match=r"predictions\.csv: cannot be read"):
        validate_model(tmp_path / "run", other_folder, OPTIONS)


def test_a_model_of_several_targets_is_refused(cohort_folder, other_folder, tmp_path):
    settings = (*QUICK, "method=snn", "modalities=rna", "target=[os,burden]")
    run = train_run(tmp_path / "run", cohort_folder, *settings)
    with pytest.raises(GimpError, match=r"several targets \(os, burden\); expected models of one"):
        validate_model(run, other_folder, OPTIONS)


def test_a_notebook_shows_the_scores_beside_those_of_the_own_test(validated):
    for kind, words in (
        ("class", ("label", "Accuracy", "; own test 0.")),
        ("survival", ("os (survival, in", "Harrell's C")),
    ):
        text = html.unescape(validated(kind)._repr_html_())
        for word in ("Validation", "SYNTHETIC", "new patients", *words):
            assert word in text
