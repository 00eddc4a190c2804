"""What a model of slides and RNA reaches on each of them alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from builders.runs import TINY
from torch import nn

from gimp_fast import models
from gimp_fast.data import Cohort
from gimp_fast.inference import load
from gimp_fast.models import ModelSettings, PatientModel
from gimp_fast.models.gimp import GiMP
from gimp_fast.runs.records import open_run
from gimp_fast.training import load_config, train

BOTH = [name for name in models.available() if "both" in models.model_class(name).reads]

VALIDATED = ("model.fusion=validated", "genes.epochs=1", "finetune.freeze_genes=true")


def result(cohort, out, *overrides):
    """Metrics and printed lines of a short run."""
    lines = []
    train(load_config(overrides=[*TINY, *overrides]), cohort, out, log=lines.append)
    return open_run(out).metrics, "\n".join(lines)


@pytest.mark.parametrize("method", BOTH)
def test_every_method_of_both_is_asked_for_each_alone(method, run_of):
    metrics = open_run(run_of(method, "both")).metrics
    found = metrics.by_modality
    assert found.refused == {}
    assert found.n == found.of == metrics.test.n
    assert found.both.accuracy == metrics.test.accuracy
    assert not found.seen_in_training
    for alone in (found.rna, found.slide):
        k, n = alone.accuracy.k, alone.accuracy.n
        assert n == metrics.test.n
        difference = k / n - metrics.test.accuracy.value
        assert alone.accuracy_difference.value == pytest.approx(difference)
        assert alone.accuracy_difference.low <= difference <= alone.accuracy_difference.high
        assert 0 < alone.accuracy_difference.p <= 1
        gap = alone.auc.value - metrics.test.auc.value
        assert alone.auc_difference.value == pytest.approx(gap, abs=1e-6)


@pytest.mark.parametrize("modalities", ["slide", "rna"])
def test_a_model_of_one_modality_has_nothing_to_compare(modalities, run_of):
    metrics = open_run(run_of("gimp", modalities)).metrics
    assert metrics.by_modality is None
    assert metrics.fusion is None


def test_the_figures_are_those_of_patients_without_the_other_modality(cohort, run_of):
    run, model = open_run(run_of("gimp", "both")), load(run_of("gimp", "both"))
    cases = cohort.split(cohort.split_names[0])["test"]
    labels = np.array([cohort.label(case) for case in cases])
    bags, genes = [cohort.bag(case).read() for case in cases], cohort.expression(cases)
    alone = {
        "rna": model.predict([None] * len(cases), genes),
        "slide": model.predict(bags, None),
    }
    for name, probabilities in alone.items():
        right = int((probabilities.argmax(1) == labels).sum())
        assert getattr(run.metrics.by_modality, name).accuracy.k == right


def test_a_weight_of_zero_says_that_slides_are_not_used(cohort, tmp_path, monkeypatch):
    def to_zero(self, representation, labels):
        self.fusion_weight.fill_(0.0)
        return True

    monkeypatch.setattr(GiMP, "fit_to_validation", to_zero)
    metrics, text = result(cohort, tmp_path / "run", *VALIDATED)
    assert metrics.fusion.weight == 0
    assert metrics.fusion.chosen_on == metrics.val.n
    assert "slides are not used" in text
    assert metrics.by_modality.rna.accuracy == metrics.test.accuracy
    assert metrics.by_modality.rna.accuracy_difference.value == 0


def test_a_chosen_weight_is_that_of_the_model(cohort, tmp_path, monkeypatch):
    def to_some(self, representation, labels):
        self.fusion_weight.fill_(0.3)
        return True

    monkeypatch.setattr(GiMP, "fit_to_validation", to_some)
    metrics, text = result(cohort, tmp_path / "run", *VALIDATED)
    assert metrics.fusion.weight == load(tmp_path / "run").model.fusion_weight_of_both() == 0.3
    assert "0.3 of the logits" in text
    assert "0.7 those of RNA alone" in text
    assert "test, RNA alone: accuracy" in text
    assert "test, slides alone: accuracy" in text


def test_only_patients_with_both_are_compared(cohort, tmp_path, monkeypatch):
    lacking = set(cohort.split(cohort.split_names[0])["test"][:3])
    original = Cohort.has_slides
    monkeypatch.setattr(
        Cohort, "has_slides", lambda self, case: case not in lacking and original(self, case)
    )
    metrics, text = result(cohort, tmp_path / "run", "finetune.modality_dropout=0.3")
    found = metrics.by_modality
    assert found.of == metrics.test.n
    assert found.n == found.rna.n == found.both.n == metrics.test.n - 3
    assert found.seen_in_training
    assert f"Only the {found.n} of {found.of} test patients who have both" in text


def test_no_patient_with_both_is_said(cohort, tmp_path, monkeypatch):
    lacking = set(cohort.split(cohort.split_names[0])["test"])
    original = Cohort.has_slides
    monkeypatch.setattr(
        Cohort, "has_slides", lambda self, case: case not in lacking and original(self, case)
    )
    metrics, text = result(cohort, tmp_path / "run")
    assert metrics.by_modality.n == 0
    assert metrics.by_modality.both is None
    assert "None of the 8 test patients has both" in text


class Concatenation(PatientModel):
    """Knows no patient without slides."""

    title, settings_class, reads = "Concatenation", ModelSettings, ("both",)

    def __init__(self, config, backend="auto"):
        super().__init__(config)
        self.head = nn.Linear(config.num_genes + config.feature_dim, config.num_outputs)

    def vectors(self, inputs):
        if not inputs.slide.everybody:
            raise ValueError("needs slides of every patient")
        lengths = inputs.bags.lengths
        means = [bag.mean(0) for bag in inputs.patches.split(list(lengths))]
        return torch.cat([torch.stack(means), inputs.genes], 1)


def test_a_model_that_needs_both_says_so_and_keeps_its_results(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(models._MODELS, "things", dict(models._MODELS.things))
    models.register("concatenation", Concatenation)
    general = ("finetune.epochs=1", "bootstrap=20", "threads=1", "method=concatenation")
    lines = []
    train(load_config(overrides=[*general]), cohort, tmp_path / "run", log=lines.append)
    metrics, text = open_run(tmp_path / "run").metrics, "\n".join(lines)
    assert metrics.by_modality.refused == {"rna": "ValueError: needs slides of every patient"}
    assert metrics.by_modality.rna is None
    assert metrics.by_modality.slide.accuracy.n == 8
    assert "test, RNA alone: not possible: ValueError: needs slides" in text
    assert len(pd.read_csv(tmp_path / "run" / "predictions.csv")) == 16
