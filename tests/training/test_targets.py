"""Survival and numbers, end to end on synthetic patients."""

from __future__ import annotations

import pandas as pd
import pytest
from builders.runs import QUICK, SMALL, train_run

import gimp_fast
from gimp_fast import models
from gimp_fast.data import open_cohort
from gimp_fast.errors import GimpError
from gimp_fast.inference.predictions import predict_cohort
from gimp_fast.report.target_sections import OUTCOME_TITLES
from gimp_fast.runs.records import open_run
from gimp_fast.training import load_config, train

TARGETS = {
    "nll": ("target=os",),
    "cox": ("target=os", "survival.loss=cox"),
    "number": ("target=burden",),
}
COLUMNS = {"nll": "c_index", "cox": "c_index", "number": "correlation"}
METHODS = [
    (name, modalities)
    for name in models.available()
    for modalities in models.model_class(name).reads
]


def settings(method, modalities):
    fields = models.model_class(method).settings_class.model_fields
    sizes = [f"model.{name}={value}" for name, value in SMALL.items() if name in fields]
    return [*QUICK, *sizes, f"method={method}", f"modalities={modalities}"]


@pytest.fixture(scope="module", params=TARGETS)
def trained(request, cohort_folder, tmp_path_factory):
    """A run of GiMP, and the score of its target."""
    out = tmp_path_factory.mktemp(request.param) / "run"
    train_run(out, cohort_folder, *settings("gimp", "both"), *TARGETS[request.param])
    return out, COLUMNS[request.param]


@pytest.mark.parametrize(("method", "modalities"), METHODS, ids="-".join)
@pytest.mark.parametrize("target", TARGETS)
def test_every_method_learns_every_target(method, modalities, target, cohort_folder, tmp_path):
    train_run(tmp_path / "run", cohort_folder, *settings(method, modalities), *TARGETS[target])
    run = open_run(tmp_path / "run").read_all()
    assert getattr(run.metrics.test, COLUMNS[target]) is not None
    assert set(run.predictions.split) == {"val", "test"}


def test_the_report_is_written(trained):
    from gimp_fast.report import write_report

    folder, score = trained
    page = write_report(folder).read_text(encoding="utf-8")
    assert "Target" in page
    # Rows of scores are those of the target.
    rows = {name: f'<th scope="row">{title}</th>' in page for name, title in OUTCOME_TITLES.items()}
    assert rows["c_index"] == (score == "c_index")
    assert rows["correlation"] == (score == "correlation")
    assert ("<h4>Net benefit at " in page) == (score == "c_index")
    assert "NaN" not in page.replace("NaN,", "")


def test_a_loaded_model_predicts_what_the_run_recorded(trained, cohort_folder):
    folder, score = trained
    model, cohort = gimp_fast.load(folder), open_cohort(cohort_folder)
    recorded = open_run(folder).predictions.of("test")
    found = predict_cohort([model], cohort, recorded.case_id.tolist())
    assert tuple(recorded.predicted) == model.columns
    for name, values in recorded.predicted.items():
        assert found.table[name].to_numpy() == pytest.approx(values, abs=1e-6)
    for name, values in recorded.truth.items():
        assert found.table[f"true_{name}"].to_numpy() == pytest.approx(values)
    assert score in found.metrics(resamples=20)["new"]


def test_an_export_keeps_the_target(trained, cohort_folder, tmp_path):
    from gimp_fast.inference.export import export_model

    folder, _ = trained
    model = gimp_fast.load(folder)
    export_model(model, tmp_path / "model")
    again = gimp_fast.load(tmp_path / "model")
    cohort = open_cohort(cohort_folder)
    cases = list(cohort.split("split_0")["test"])
    tables = [predict_cohort([one], cohort, cases).table for one in (model, again)]
    pd.testing.assert_frame_equal(*tables)


def test_stages_run_one_by_one_give_the_same(cohort_folder, tmp_path):
    asked = [*settings("gimp", "both"), *TARGETS["cox"]]
    whole = train_run(tmp_path / "whole", cohort_folder, *asked)
    config = load_config(overrides=[*asked, f"data={cohort_folder}"])
    parts = tmp_path / "parts"
    train(config, cohort_folder, parts, stages=["genes"], log=lambda text: None)
    train(config, cohort_folder, parts, resume=True, log=lambda text: None)
    assert open_run(parts).metrics.test == open_run(whole).metrics.test


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            ["target=oss"],
            r"found 'oss'; expected classification, or a target of the cohort: os, burden.*'os'",
        ),
        (["target=os", "finetune.select=accuracy"], "expected c_index or loss"),
        (["target=burden", "finetune.select=auc"], "expected loss or correlation"),
        (["target=os", "survival.bins=50"], "distinct times of events; expected at least 50"),
    ],
    ids=["unknown", "measure", "measure-of-numbers", "bins"],
)
def test_what_does_not_fit_is_refused(asked, message, cohort_folder, tmp_path):
    with pytest.raises(GimpError, match=message):
        train_run(tmp_path / "run", cohort_folder, *settings("abmil", "slide"), *asked)
    assert not (tmp_path / "run").exists()
