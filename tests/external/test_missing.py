"""Patients of whom more and more lack a modality, from models to the page."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from builders.runs import QUICK, TINY, train_run
from builders.validations import QUICK_VALIDATION

from gimp_fast import validate
from gimp_fast.data import Cohort, open_cohort
from gimp_fast.errors import GimpError
from gimp_fast.external import validate_model, write_validation
from gimp_fast.external.missing_curves import SHARES, lacking
from gimp_fast.external.missing_texts import verdicts
from gimp_fast.inference import load

NEW = 48
SPLIT = "split_0"


@pytest.fixture(scope="session")
def single(run_of):
    """A model of slides alone and one of RNA alone."""
    return run_of("mean_pool", "slide"), run_of("snn", "rna")


@pytest.fixture(scope="session")
def followed(gimp_run, single, other_folder):
    return validate_model(gimp_run, other_folder, QUICK_VALIDATION, against=single)


def test_the_ends_are_the_predictions_with_and_without(followed, gimp_run, other_folder):
    found = followed.missing
    assert (found.patients, found.of) == (NEW, NEW)
    cohort, cases = open_cohort(other_folder), followed.table["case_id"].tolist()
    labels = np.array([cohort.label(case) for case in cases])
    bags, genes = [cohort.bag(case).read() for case in cases], cohort.expression(cases)
    model, without = load(gimp_run), {"rna": (bags, None), "slide": ([None] * NEW, genes)}
    for curve in found.curves:
        assert [point.share for point in curve.points] == list(SHARES)
        assert [point.lacking for point in curve.points] == [lacking(s, NEW) for s in SHARES]
        score = followed.scores[curve.score].new
        assert curve.points[0].score.value == pytest.approx(score.value, abs=1e-6)
        assert curve.points[0].score.low == pytest.approx(score.low, abs=1e-6)
        if curve.score == "accuracy":
            right = model.predict(*without[curve.lacks]).argmax(1) == labels
            assert curve.points[-1].score.value == pytest.approx(right.mean())


def test_models_of_one_modality_are_beside_them(followed, single, other_folder):
    alone = {
        lacks: validate_model(run, other_folder, QUICK_VALIDATION).scores
        for lacks, run in zip(("rna", "slide"), single, strict=True)
    }
    for curve in followed.missing.curves:
        point = curve.points[-1]
        expected = alone[curve.lacks][curve.score].new.value
        # With nothing lost, models of either modality answer everybody.
        assert point.reference.value == pytest.approx(expected, abs=1e-6)
        gap = point.score.value - expected
        assert point.difference.value == pytest.approx(gap, abs=1e-6)
        assert point.difference.low <= gap <= point.difference.high
    reads = [model["modalities"] for model in followed.missing.against]
    assert reads == ["slide", "rna"]


def test_the_page_the_table_and_the_figures(followed, tmp_path):
    page = write_validation(followed, tmp_path).read_text(encoding="utf-8")
    said = list(verdicts(followed.missing))
    assert len(said) == 4  # accuracy and AUC, twice
    for line in said:
        assert line in page
        assert "alls below by more than 0.005" in line
    assert 'href="#missing"' in page
    with (tmp_path / "missing.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * 3 * len(SHARES)
    last = next(r for r in rows if (r["lacks"], r["score"], r["share"]) == ("rna", "auc", "1"))
    curve = next(c for c in followed.missing.curves if (c.lacks, c.score) == ("rna", "auc"))
    assert float(last["value"]) == pytest.approx(curve.points[-1].score.value)
    assert int(last["falls_below"]) == (curve.points[-1].difference.value < -0.005)
    facts = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert len(facts["missing"]["curves"]) == 6
    assert {path.stem for path in (tmp_path / "figures").glob("missing*.svg")} == {
        "missing_rna",
        "missing_slide",
    }


def test_without_the_curves_nothing_of_them_is_left(validated, followed, tmp_path):
    write_validation(followed, tmp_path)
    page = write_validation(validated(), tmp_path).read_text(encoding="utf-8")
    assert not (tmp_path / "missing.csv").exists()
    assert "#missing" not in page
    assert "missing" not in json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))


def test_survival_by_the_command_on_the_own_test_patients(cohort_folder, tmp_path, capsys):
    run = train_run(tmp_path / "run", cohort_folder, *TINY, "target=os")
    asked = ["--run", run, "--data", cohort_folder, "--out", tmp_path / "out", "--missing"]
    quick = ["--exclude-known", "--resamples", "30", "--missing-draws", "3"]
    assert validate.main([*map(str, asked), *quick]) == 0
    said = capsys.readouterr().out
    assert "Without RNA: no model of slides alone was given (--against)" in said
    facts = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert [curve["score"] for curve in facts["missing"]["curves"]] == ["c_index"] * 2
    assert facts["missing"]["patients"] == 8
    assert facts["missing"]["draws"] == 3


def hide_from(monkeypatch, lacking_cases: set[str]) -> None:
    original = Cohort.has_expression
    monkeypatch.setattr(
        Cohort,
        "has_expression",
        lambda self, case: case not in lacking_cases and original(self, case),
    )


def test_who_lacks_one_already_is_not_followed(gimp_run, other_folder, followed, monkeypatch):
    cases = followed.table["case_id"].tolist()
    hide_from(monkeypatch, set(cases[:9]))
    found = validate_model(gimp_run, other_folder, exclude_known=True, missing=True, resamples=20)
    assert found.patients == NEW
    assert (found.missing.patients, found.missing.of) == (NEW - 9, NEW)
    assert found.missing.curves[0].points[-1].lacking == NEW - 9


def test_nobody_to_follow_is_said(gimp_run, other_folder, followed, monkeypatch, tmp_path):
    hide_from(monkeypatch, set(followed.table["case_id"]))
    found = validate_model(gimp_run, other_folder, exclude_known=True, missing=True, resamples=20)
    assert found.missing.curves == ()
    why = "0 of 48 patients have slides and RNA; expected two or more"
    assert set(found.missing.reasons.values()) == {why}
    assert why in write_validation(found, tmp_path).read_text(encoding="utf-8")


def test_models_of_something_else_are_refused(gimp_run, single, trained, other_folder):
    for models, against, message in (
        (single[0], (), "a model of slides alone; expected one of slides and RNA"),
        (gimp_run, gimp_run, "a model of slides and RNA; expected one of slides alone or RNA"),
        (gimp_run, trained("survival"), "found the columns risk"),
    ):
        with pytest.raises(GimpError, match=message):
            validate_model(models, other_folder, exclude_known=True, missing=True, against=against)


def test_patients_whom_only_the_others_know_are_refused(gimp_run, other_folder, followed, tmp_path):
    other = open_cohort(other_folder)
    known = train_run(tmp_path / "run", other_folder, *QUICK, "method=snn", "modalities=rna")
    new = [case for case in followed.table["case_id"] if case not in other.split(SPLIT)["test"]]
    asked = {"cases": new, "against": known, "resamples": 20}
    message = f"found {len(new)} of {len(new)} patients on whom a model was trained"
    with pytest.raises(GimpError, match=message):
        validate_model(gimp_run, other, **asked)
    with pytest.raises(GimpError, match="found 0 new patients"):
        validate_model(gimp_run, other, exclude_known=True, **asked)


@pytest.mark.parametrize("draws", ["0", "-1"])
def test_draws_are_one_or_more(draws, gimp_run, other_folder, tmp_path, capsys):
    asked = ["--run", gimp_run, "--data", other_folder, "--out", tmp_path / "out"]
    assert validate.main([*map(str, asked), "--missing", f"--missing-draws={draws}"]) == 2
    assert f"missing_draws: found {draws}; expected 1 or more" in capsys.readouterr().err
