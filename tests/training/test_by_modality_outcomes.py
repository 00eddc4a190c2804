"""What survival and numbers keep with a part of what the model reads; and covariates hidden."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from builders.runs import QUICK, SMALL

from gimp_fast import models
from gimp_fast.data import Cohort, open_cohort
from gimp_fast.evaluation.survival import harrell_c
from gimp_fast.inference import load
from gimp_fast.runs.records import open_run
from gimp_fast.targets.survival import outcomes_of
from gimp_fast.training import load_config, train
from gimp_fast.training.stage import StageContext

COVARIATES = "covariates=[age,stage]"
TARGETS = {
    "nll": ("target=os", "c_index"),
    "cox": ("target=os survival.loss=cox", "c_index"),
    "number": ("target=burden", "mean_absolute_error"),
}


def trained(cohort, out, method, modalities, *more):
    """The folder of a short run, and what it printed."""
    fields = models.model_class(method).settings_class.model_fields
    sizes = [f"model.{name}={value}" for name, value in SMALL.items() if name in fields]
    asked = [*QUICK, *sizes, f"method={method}", f"modalities={modalities}", *more]
    lines = []
    train(load_config(overrides=asked), cohort, out, log=lines.append)
    return out, "\n".join(lines)


@pytest.fixture(scope="module", params=TARGETS)
def run(request, cohort_folder, tmp_path_factory):
    """A run of both modalities that reads covariates, its printed lines, and its main score."""
    asked, score = TARGETS[request.param]
    out = tmp_path_factory.mktemp(request.param) / "run"
    cohort = open_cohort(cohort_folder)
    return (*trained(cohort, out, "gimp", "both", COVARIATES, *asked.split()), score)


def shown_parts(model, cohort, cases):
    """Name -> predictions of a loaded model that is given parts of what it reads."""
    bags, genes = [cohort.bag(case).read() for case in cases], cohort.expression(cases)
    table = pd.DataFrame(
        {
            name: [covariate.values.get(case) for case in cases]
            for name, covariate in cohort.covariates.items()
        }
    )
    return {
        "both": model.predict(bags, genes, table),
        "rna": model.predict([None] * len(cases), genes, table),
        "slide": model.predict(bags, None, table),
        "without_covariates": model.predict(bags, genes),
    }


def score_of(score, reported, truth):
    if score == "c_index":
        return harrell_c(outcomes_of(truth), reported[:, 0].astype(np.float64))
    return np.abs(reported[:, 0] - truth).mean()


def test_the_scores_are_those_of_a_model_that_is_given_less(run, cohort):
    folder, _, score = run
    found, model = open_run(folder).metrics.by_modality, load(folder)
    cases = cohort.split("split_0")["test"]
    truth = cohort.truth(cases, open_run(folder).metrics.target.name)
    for name, reported in shown_parts(model, cohort, cases).items():
        expected = score_of(score, reported, truth)
        recorded = getattr(found, name)
        assert getattr(recorded, score).value == pytest.approx(expected, rel=1e-5)
        assert recorded.n == len(cases) == found.n
        if name == "both":
            assert getattr(recorded, score) == getattr(open_run(folder).metrics.test, score)
            continue
        gap = recorded.difference(score)
        assert gap.value == pytest.approx(expected - getattr(found.both, score).value, abs=1e-6)
        assert gap.low <= gap.value <= gap.high
        assert 0 < gap.p <= 1
        assert recorded.difference("accuracy") is None


def test_covariates_alone_are_what_they_add(run, cohort):
    folder, _, score = run
    model, found = load(folder), open_run(folder).metrics.by_modality
    cases, val = cohort.split("split_0")["test"], cohort.split("split_0")["val"]
    reader = model.reader_of(cohort, model.columns_in(cohort))

    def outputs(of):
        inputs = reader.inputs(of)
        return model.model(inputs), model.model.covariate_head(inputs.covariates)

    (whole, added), (_, shown) = outputs(val), outputs(cases)
    alone = model.target.predictions((whole - added).mean(0) + shown).detach().numpy()
    truth = cohort.truth(cases, open_run(folder).metrics.target.name)
    expected = score_of(score, model.target.reported(alone), truth)
    assert getattr(found.covariates, score).value == pytest.approx(expected, rel=1e-5)


def test_the_console_and_the_card_say_what_was_shown(run, tmp_path):
    from gimp_fast.inference.export import export_model

    folder, text, score = run
    title = {"c_index": "C-index", "mean_absolute_error": "mean absolute error"}[score]
    export_model(load(folder), tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    for shown in (
        "RNA and covariates",
        "slides and covariates",
        "slides and RNA, without covariates",
        "covariates alone",
    ):
        line = next(line for line in text.splitlines() if line.startswith(f"test, {shown}: "))
        assert line.startswith(f"test, {shown}: {title} ")
        assert f"; {title} " in line
        assert line.endswith(" against all")
        assert f"- {line}" in card
    assert "test, slides, RNA and covariates" not in text  # it is the first line
    assert "- test, slides, RNA and covariates: " in card
    assert "In training, no patient lacked a modality" in text


def test_the_report_shows_them(run):
    from gimp_fast.report import write_report

    folder, _, score = run
    page = write_report(folder).read_text(encoding="utf-8")
    title = {"c_index": "C-index", "mean_absolute_error": "Mean absolute error"}[score]
    assert f'<th scope="col">{title}</th>' in page
    assert f'<th scope="col">{title} against all</th>' in page
    assert '<th scope="row">slides and RNA, without covariates</th>' in page
    assert '<th scope="row">covariates alone</th>' in page
    assert "age, stage" in page


@pytest.mark.parametrize("target", ["classification", "os"])
def test_a_model_of_one_modality_is_shown_without_covariates(target, cohort, tmp_path):
    dropout = "finetune.modality_dropout=0.4"
    more = (COVARIATES, f"target={target}", dropout, "model.covariate_hidden=5")
    folder, text = trained(cohort, tmp_path / "run", "snn", "rna", *more)
    found = open_run(folder).metrics.by_modality
    assert (found.reads, found.n, found.of) == ("rna", 8, 8)
    assert found.rna is found.slide is None
    assert found.covariates_hidden_in_training
    main = "accuracy" if target == "classification" else "c_index"
    for part in (found.without_covariates, found.covariates):
        gap = getattr(part, main).value - getattr(found.both, main).value
        assert part.difference(main).value == pytest.approx(gap, abs=1e-6)
    assert "test, RNA, without covariates: " in text
    assert "against both" in text
    assert "never learned" not in text


def test_a_model_without_covariates_says_nothing_of_them(cohort, tmp_path):
    folder, text = trained(cohort, tmp_path / "run", "mcat", "both", "target=os")
    found = open_run(folder).metrics.by_modality
    assert found.without_covariates is found.covariates is found.with_covariates is None
    assert found.slide.c_index_difference is not None
    assert "covariates" not in text
    assert "test, RNA alone: C-index" in text
    folder, _ = trained(cohort, tmp_path / "slide", "abmil", "slide", "target=os")
    assert open_run(folder).metrics.by_modality is None


def test_who_has_covariates_is_counted_and_who_never_lacked_them_is_told(
    cohort, tmp_path, monkeypatch
):
    split = cohort.split("split_0")
    ages = dict(cohort.covariates["age"].values)
    ages |= {case: 60.0 for case in split["train"]}
    for case in split["test"][:3]:
        ages.pop(case, None)
    known = sum(case in ages for case in split["test"])
    every = dict(cohort.covariates) | {"age": replace(cohort.covariates["age"], values=ages)}
    monkeypatch.setattr(cohort, "covariates", every)
    asked = ("covariates=[age]", "target=burden")
    folder, text = trained(cohort, tmp_path / "run", "abmil", "slide", *asked)
    found = open_run(folder).metrics.by_modality
    assert found.with_covariates == known < found.n
    assert not found.covariates_hidden_in_training
    assert f"Of them, {known} have covariates." in text
    assert "no patient lacked all covariates" in text


def test_nobody_with_both_is_no_comparison(cohort, tmp_path, monkeypatch):
    lacking = set(cohort.split("split_0")["test"])
    original = Cohort.has_slides
    monkeypatch.setattr(
        Cohort, "has_slides", lambda self, case: case not in lacking and original(self, case)
    )
    folder, text = trained(cohort, tmp_path / "run", "mcat", "both", "target=os", COVARIATES)
    found = open_run(folder).metrics.by_modality
    assert (found.n, found.both, found.covariates) == (0, None, None)
    assert "None of the 8 test patients has both" in text


def test_a_part_that_is_not_finite_is_refused(cohort, tmp_path, monkeypatch):
    original = StageContext.predict

    def broken(self, cases, hide=0):
        outputs = original(self, cases, hide)
        return replace(outputs, predictions=outputs.predictions * np.nan) if hide else outputs

    monkeypatch.setattr(StageContext, "predict", broken)
    folder, text = trained(cohort, tmp_path / "run", "mcat", "both", "target=os", COVARIATES)
    found = open_run(folder).metrics.by_modality
    reason = "some of its predictions are not finite"
    assert found.refused == dict.fromkeys(["rna", "slide", "without_covariates"], reason)
    assert found.rna is None
    assert found.covariates is not None
    assert f"test, RNA and covariates: not possible: {reason}" in text
