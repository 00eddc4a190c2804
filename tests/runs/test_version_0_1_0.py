"""A run and an export that version 0.1.0 wrote still open and predict the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import gimp_fast
from gimp_fast.report import write_report
from gimp_fast.runs.gene_list import read_gene_reference
from gimp_fast.runs.records import open_run

OLD = Path(__file__).parent / "v0_1_0"
RECORDS = {
    "metrics.json": lambda run: run.metrics.to_json(indent=2) + "\n",
    "run.json": lambda run: run.record.to_json(indent=2) + "\n",
    "predictions.csv": lambda run: run.predictions.to_csv(),
    "metrics.jsonl": lambda run: "".join(
        epoch.to_json() + "\n" for epochs in run.epochs.values() for epoch in epochs
    ),
}


@pytest.mark.parametrize("name", RECORDS)
def test_records_are_written_as_they_were(name):
    run = open_run(OLD / "run")
    assert RECORDS[name](run) == (OLD / "run" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["run", "export"])
def test_the_model_predicts_what_it_did(kind):
    trained = gimp_fast.load(OLD / kind)
    with np.load(OLD / "patients.npz") as patients:
        bags = np.split(patients["patches"], np.cumsum(patients["lengths"])[:-1])
        found = trained.predict(bags, patients["genes"])
        np.testing.assert_allclose(found, patients["probabilities"], atol=1e-6)
        found = trained.represent(bags, patients["genes"])
        np.testing.assert_allclose(found, patients["representations"], atol=1e-5)


def test_the_run_has_a_report_and_the_export_genes(tmp_path):
    run = shutil.copytree(OLD / "run", tmp_path / "run")
    assert "synthetic" in write_report(run).read_text(encoding="utf-8")
    assert read_gene_reference(OLD / "export") == read_gene_reference(OLD / "run")
