"""The verbs of a notebook: prepare, open, train, load."""

from __future__ import annotations

import json

import numpy as np
import pytest

import gimp_fast
from gimp_fast.errors import FaultError, GimpError
from gimp_fast.training import load_config

QUICK = {
    "genes": {"epochs": 1}, "pretrain": {"epochs": 1, "window": 16}, "finetune": {"epochs": 1},
    "model": {"dim": 16, "heads": 2, "num_landmarks": 8}, "bootstrap": 20, "threads": 1,
}  # fmt: skip


def test_from_a_cohort_to_predictions(cohort_folder, tmp_path):
    cohort = gimp_fast.open_cohort(cohort_folder)
    lines = []
    metrics = gimp_fast.train_model(cohort, tmp_path / "run", seed=3, log=lines.append, **QUICK)
    assert metrics == json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["seed"], metrics["method"]) == (3, "gimp")
    assert lines[-1] == f"report: {tmp_path / 'run' / 'report.html'}"
    model = gimp_fast.load(tmp_path / "run")
    patches = [cohort.bag(case).read() for case in cohort.case_ids[:2]]
    probabilities = model.predict(patches, cohort.expression(cohort.case_ids[:2]))
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)


def test_a_configuration_may_be_handed_over(cohort_folder, tmp_path):
    config = load_config("demo", fields=QUICK | {"method": "abmil", "model": {"dim": 8}})
    metrics = gimp_fast.train_model(
        cohort_folder, tmp_path / "run", config, report=False, log=lambda line: None
    )
    assert metrics["method"] == "abmil"
    assert not (tmp_path / "run" / "report.html").exists()


def test_a_configuration_and_fields_are_one_too_many(cohort_folder, tmp_path):
    with pytest.raises(GimpError, match="found a config and seed; expected either"):
        gimp_fast.train_model(cohort_folder, tmp_path / "run", load_config("demo"), seed=1)
    assert not (tmp_path / "run").exists()


def test_fields_that_do_not_exist_are_named(cohort_folder, tmp_path):
    with pytest.raises(FaultError, match=r"finetune\.learning_rate"):
        gimp_fast.train_model(cohort_folder, tmp_path / "run", finetune={"learning_rate": 1})


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'train_modell'"):
        _ = gimp_fast.train_modell
