"""Predictions on cohorts: those of the run itself, of new patients, of several models."""

from __future__ import annotations

import csv
import json
import shutil

import h5py
import numpy as np
import pytest
import torch
from builders.runs import TINY, train_run
from hypothesis import given
from hypothesis import strategies as st

import gimp_fast
from gimp_fast.data import open_cohort
from gimp_fast.data.prepare.assemble import prepare
from gimp_fast.data.prepare.options import PrepareOptions, RnaOptions
from gimp_fast.errors import GimpError
from gimp_fast.inference.options import PredictOptions
from gimp_fast.inference.predictions import plan_batches, predict_cohort
from gimp_fast.training import load_config
from gimp_fast.training.sampling import PatientReader
from gimp_fast.training.stage import StageContext
from gimp_fast.verbs import prepare_cohort


def predicted(trained, cohort, cases=None, **options):
    return predict_cohort([trained], cohort, cases, PredictOptions(**options))


def test_predictions_are_those_that_the_run_wrote(any_run, cohort):
    with (any_run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    trained = gimp_fast.load(any_run)
    found = predicted(trained, cohort, [row["case_id"] for row in rows])
    table = found.table
    assert list(table["case_id"]) == [row["case_id"] for row in rows]
    assert list(table["label"]) == [row["label"] for row in rows]
    assert list(table["prediction"]) == [row["prediction"] for row in rows]
    expected = [[float(row[f"prob_{name}"]) for name in trained.classes] for row in rows]
    np.testing.assert_allclose(found.probabilities(), expected, atol=1e-6)


def test_on_the_same_batches_they_are_the_same_bits(any_run, cohort):
    trained, cases = gimp_fast.load(any_run), list(cohort.case_ids)
    reader = PatientReader(cohort, trained.modalities, trained.scaler, cache_gb=1.0)
    config = load_config(overrides=["finetune.batch_size=10"])
    context = StageContext(config, trained.model, reader, {}, torch.device("cpu"))
    assert config.precision == trained.precision
    expected = context.predict(cases).predictions
    found = predicted(trained, cohort, cases, batch_size=10)
    np.testing.assert_array_equal(found.probabilities(), expected)


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 1}, {"max_patches": 40}, {"workers": 1}, {"batch_size": 100}],
    ids=str,
)
def test_batches_change_nothing_but_rounding(gimp_run, cohort, options):
    trained = gimp_fast.load(gimp_run)
    expected = predicted(trained, cohort).probabilities()
    found = predicted(trained, cohort, **options).probabilities()
    np.testing.assert_allclose(found, expected, atol=1e-6)


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(1, 6), st.integers(1, 60))
def test_batches_hold_all_patients_in_order_and_keep_their_bounds(lengths, size, most):
    batches = plan_batches(lengths, PredictOptions(batch_size=size, max_patches=most))
    assert [place for batch in batches for place in batch] == list(range(len(lengths)))
    for batch in batches:
        assert 0 < len(batch) <= size
        assert len(batch) == 1 or sum(lengths[place] for place in batch) <= most


@pytest.mark.parametrize("name", ["batch_size", "max_patches", "workers"])
def test_impossible_bounds(name):
    with pytest.raises(GimpError, match=f"{name}: found -1"):
        PredictOptions(**{name: -1})


def test_the_mean_of_several_models(run_of, cohort):
    models = [gimp_fast.load(run_of(*key)) for key in (("gimp", "both"), ("abmil", "slide"))]
    together = predict_cohort(models, cohort)
    each = [predicted(model, cohort).probabilities() for model in models]
    expected = np.mean(each, axis=0)
    np.testing.assert_allclose(together.probabilities(), expected, atol=1e-7)
    assert list(together.table["prediction"]) == [models[0].classes[i] for i in expected.argmax(1)]
    models[1].classes = ("SYN-A", "SYN-C")
    with pytest.raises(GimpError, match="found the classes SYN-A, SYN-C; expected SYN-A, SYN-B"):
        predict_cohort(models, cohort)


@pytest.fixture(scope="module")
def new_patients(cohort_folder, tmp_path_factory):
    """Options of a cohort of patients without labels, from the raw files of the training ones."""
    raw = shutil.copytree(cohort_folder.parent / "raw", tmp_path_factory.mktemp("new") / "raw")
    slides = tuple(sorted((raw / "slides").iterdir()))
    cases = raw / "cases.csv"
    lines = (raw / "labels.csv").read_text(encoding="utf-8").splitlines()
    cases.write_text("\n".join(line.rsplit(",", 1)[0] for line in lines), encoding="utf-8")

    def options(out, **changes):
        rna = RnaOptions(paths=(raw / "rna",), **changes.pop("rna", {}))
        values = {"labels": None, "cases": cases, "slides": slides, "rna": rna, "out": out}
        return PrepareOptions(**values | changes)

    return options


def test_patients_without_labels(new_patients, gimp_run, cohort, tmp_path):
    prepare_cohort(new_patients(tmp_path / "new", rna={"genes_of": gimp_run}))
    new, trained = open_cohort(tmp_path / "new"), gimp_fast.load(gimp_run)
    table = predicted(trained, new).table
    expected = predicted(trained, cohort).table
    assert table.drop(columns=["label", "warnings"]).equals(
        expected.drop(columns=["label", "warnings"])
    )
    assert set(table["label"]) == {""}
    assert predicted(trained, new).metrics() == {}


def test_genes_in_another_order_and_among_others(new_patients, cohort, tmp_path):
    """The model reads some of the genes; the new cohort has all, in the reverse order."""
    chosen = tmp_path / "genes.txt"
    chosen.write_text("\n".join(cohort.gene_ids[10:40]), encoding="utf-8")
    labels = {"labels": cohort.path.parent / "raw" / "labels.csv", "cases": None}
    prepare(new_patients(tmp_path / "some", rna={"genes": chosen}, **labels))
    run = train_run(tmp_path / "run", tmp_path / "some", *TINY)
    chosen.write_text("\n".join(reversed(cohort.gene_ids)), encoding="utf-8")
    prepare(new_patients(tmp_path / "all", rna={"genes": chosen}))
    some, new = open_cohort(tmp_path / "some"), open_cohort(tmp_path / "all")
    assert new.gene_ids == cohort.gene_ids[::-1]
    trained = gimp_fast.load(run)
    assert trained.gene_ids == cohort.gene_ids[10:40]
    a, b = (predicted(trained, cohort).probabilities() for cohort in (some, new))
    np.testing.assert_array_equal(a, b)


def test_the_most_variable_genes(cohort_folder, cohort, tmp_path):
    run = train_run(tmp_path / "run", cohort_folder, *TINY, "most_variable_genes=20")
    trained = gimp_fast.load(run)
    assert len(trained.gene_ids) == 20
    expected = csv.DictReader((run / "predictions.csv").open(encoding="utf-8"))
    expected = {row["case_id"]: float(row["prob_SYN-A"]) for row in expected}
    table = predicted(trained, cohort, list(expected)).table
    np.testing.assert_allclose(table["prob_SYN-A"], list(expected.values()), atol=1e-6)


def test_genes_that_are_missing(new_patients, gimp_run, cohort, tmp_path):
    chosen = tmp_path / "genes.txt"
    chosen.write_text("\n".join(cohort.gene_ids[:58]), encoding="utf-8")
    prepare(new_patients(tmp_path / "fewer", rna={"genes": chosen}))
    trained = gimp_fast.load(gimp_run)
    with pytest.raises(GimpError, match="found 58 of the model's 60 genes") as caught:
        predicted(trained, open_cohort(tmp_path / "fewer"))
    assert str(tmp_path / "fewer") in str(caught.value)
    assert f"{cohort.gene_ids[58]}, {cohort.gene_ids[59]}" in str(caught.value)
    assert f"--genes-of {gimp_run}" in str(caught.value)


@pytest.mark.parametrize(("method", "modalities"), [("gimp", "both"), ("gimp", "rna")])
def test_rna_alone(new_patients, run_of, tmp_path, method, modalities):
    changes = {"slides": (), "cases": None, "allow_missing_modality": True}
    prepare(new_patients(tmp_path / "rna", **changes))
    new, trained = open_cohort(tmp_path / "rna"), gimp_fast.load(run_of(method, modalities))
    found = predicted(trained, new)
    assert set(found.table["slide_ids"]) == {""}
    assert np.isfinite(found.probabilities()).all()
    codes = set(";".join(found.table["warnings"]).split(";"))
    assert ("no-slide" in codes) == (modalities == "both")


def test_patients_of_whom_the_model_reads_nothing(new_patients, run_of, tmp_path):
    changes = {"cases": None, "allow_missing_modality": True}
    prepare(new_patients(tmp_path / "rna", slides=(), **changes))
    slide_model = gimp_fast.load(run_of("abmil", "slide"))
    with pytest.raises(GimpError, match=r"found none of \d+ patients with what the model reads"):
        predicted(slide_model, open_cohort(tmp_path / "rna"))
    # Slides of some, listed under their own names, beside RNA of all.
    options = new_patients(tmp_path / "mixed", **changes)
    prepare(new_patients(tmp_path / "mixed", slides=options.slides[:1], **changes))
    new = open_cohort(tmp_path / "mixed")
    found = predicted(slide_model, new)
    nothing = ~found.table["slide_ids"].astype(bool).to_numpy()
    assert 0 < nothing.sum() < len(new)
    assert np.isnan(found.probabilities()[nothing]).all()
    assert np.isfinite(found.probabilities()[~nothing]).all()
    assert set(found.table["prediction"][nothing]) == {""}
    assert set(found.table["warnings"][nothing]) <= {
        "not-predicted", "training-patient;not-predicted"
    }  # fmt: skip


def test_features_of_another_width(new_patients, gimp_run, tmp_path):
    folder = tmp_path / "slides"
    folder.mkdir()
    with h5py.File(folder / "one.h5", "w") as h5:
        h5["features"] = np.zeros((20, 192), np.float32)
    changes = {"cases": None, "rna": {}, "allow_missing_modality": True}
    options = new_patients(tmp_path / "new", slides=(folder,), **changes)
    prepare(options)
    with pytest.raises(GimpError, match=r"found features of 192 channels .*; expected 8 .*synth"):
        predicted(gimp_fast.load(gimp_run), open_cohort(tmp_path / "new"))


def test_unknown_patients_are_all_named(gimp_run, cohort):
    cases = ["X1", cohort.case_ids[0], "X2"]
    with pytest.raises(GimpError, match=r"found no patient X1, X2 \(2 of 3 asked for\)"):
        predicted(gimp_fast.load(gimp_run), cohort, cases)
    with pytest.raises(GimpError, match="no patient was asked for"):
        predicted(gimp_fast.load(gimp_run), cohort, [])


def test_metrics_are_apart_for_patients_of_training(gimp_run, cohort):
    trained, split = gimp_fast.load(gimp_run), cohort.split("split_0")
    metrics = predicted(trained, cohort).metrics(resamples=20)
    expected = json.loads((gimp_run / "metrics.json").read_text())["test"]
    assert metrics["new"] == expected
    assert metrics["seen"]["n"] == len(split["train"]) + len(split["val"])
    assert set(predicted(trained, cohort, split["train"]).metrics(resamples=5)) == {"seen"}


def test_what_is_written_is_what_was_predicted(gimp_run, cohort, tmp_path):
    predictions = predicted(gimp_fast.load(gimp_run), cohort)
    beside = predictions.write(tmp_path / "new" / "predictions.csv", {"metrics": {}})
    with (tmp_path / "new" / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "case_id", "slide_ids", "prediction", "prob_SYN-A", "prob_SYN-B", "label", "warnings"
    ]  # fmt: skip
    assert [row["case_id"] for row in rows] == list(cohort.case_ids)
    many = max(rows, key=lambda row: row["slide_ids"].count(";"))
    assert many["slide_ids"].split(";") == list(cohort.bag(many["case_id"]).slide_ids)
    written = np.array([[row["prob_SYN-A"], row["prob_SYN-B"]] for row in rows], np.float32)
    np.testing.assert_array_equal(written, predictions.probabilities())
    summary = json.loads(beside.read_text(encoding="utf-8"))
    assert beside.name == "predictions.warnings.json"
    assert summary["counts"]["training-patient"] == 32
    assert summary["patients"] == 40
    expected = {r["case_id"]: set(r["warnings"].split(";")) for r in rows if r["warnings"]}
    found = {case: {c["code"] for c in cautions} for case, cautions in summary["warnings"].items()}
    assert found == expected
