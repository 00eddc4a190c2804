"""Trained models from runs: what they know, and what they do with arrays and tables in memory."""

from __future__ import annotations

import copy
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import gimp_fast
from gimp_fast import models
from gimp_fast.errors import GimpError
from gimp_fast.inference.export import export_model
from gimp_fast.inference.model import TrainedModel
from gimp_fast.inference.options import PRECISIONS
from gimp_fast.inference.predictions import predict_cohort
from gimp_fast.runs.checkpoint import load_checkpoint, save_checkpoint


def bags_and_genes(cohort, cases):
    return [cohort.bag(case).read() for case in cases], cohort.expression(cases)


def test_importing_the_name_gives_the_function():
    from gimp_fast.inference import TrainedModel, load

    assert gimp_fast.load is load
    assert gimp_fast.TrainedModel is TrainedModel
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = gimp_fast.lode


def test_it_knows_what_it_was_trained_on(gimp_run, cohort):
    trained = gimp_fast.load(gimp_run)
    assert trained.classes == cohort.classes
    assert trained.gene_ids == cohort.gene_ids
    assert trained.feature_dim == 8
    assert trained.synthetic
    assert not trained.model.training
    assert trained.facts["metrics"]["test"]["n"] == 8
    assert trained.facts["training"] == {
        "gimp_fast": gimp_fast.__version__,
        "seed": 0,
        "precision": "fp32",
        "batch_size": 16,
    }
    text = repr(trained)
    assert "gimp: slides (synthetic) and 60 genes -> SYN-A, SYN-B" in text
    assert "SYNTHETIC patients of 'synthetic'" in text


def test_arrays_and_tables_give_what_the_cohort_gives(any_run, cohort):
    trained, cases = gimp_fast.load(any_run), cohort.case_ids[:5]
    bags, genes = bags_and_genes(cohort, cases)
    expected = predict_cohort([trained], cohort, cases).probabilities()
    # Columns that a slide-only model has no use for are not looked at.
    table = pd.DataFrame(genes, columns=cohort.gene_ids)
    shuffled = table[table.columns[::-1]].assign(another=1.0)
    wanted = genes if trained.uses_genes else None
    for given in (wanted, shuffled):
        found = trained.predict(bags if trained.uses_slides else None, given)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert trained.represent(bags, genes if trained.uses_genes else None).shape[0] == 5
    tensors = [torch.from_numpy(bag) for bag in bags]
    np.testing.assert_array_equal(trained.predict(tensors, wanted), trained.predict(bags, wanted))


OF_BOTH = [name for name in models.available() if "both" in models.model_class(name).reads]


@pytest.mark.parametrize("method", OF_BOTH)
def test_a_patient_may_lack_either_modality(method, run_of, cohort):
    trained, cases = gimp_fast.load(run_of(method, "both")), cohort.case_ids[:3]
    bags, genes = bags_and_genes(cohort, cases)
    both = trained.predict(bags, genes)
    np.testing.assert_allclose(trained.predict(bags), trained.predict(bags, genes * np.nan))
    np.testing.assert_allclose(
        trained.predict(None, genes), trained.predict([None, None, bags[0][:0]], genes)
    )
    genes[1] = np.nan
    mixed = trained.predict([bags[0], bags[1], None], genes)
    np.testing.assert_allclose(mixed[0], both[0], atol=1e-6)
    np.testing.assert_allclose(mixed[1], trained.predict(bags[1:2])[0], atol=1e-6)
    np.testing.assert_allclose(mixed[2], trained.predict(None, genes[2:])[0], atol=1e-6)


def test_a_gene_that_was_not_measured_is_at_the_training_mean(gimp_run, cohort):
    trained = gimp_fast.load(gimp_run)
    _, genes = bags_and_genes(cohort, cohort.case_ids[:2])
    filled = genes.copy()
    filled[:, 7] = trained.scaler.mean[7]
    genes[:, 7] = np.nan
    np.testing.assert_array_equal(trained.predict(None, genes), trained.predict(None, filled))


@pytest.mark.parametrize(
    ("patches", "genes", "message"),
    [
        ([np.zeros((3, 9))], None, r"found shape \(3, 9\); expected \(patches, 8\)"),
        ([np.zeros(8)], None, r"found shape \(8,\)"),
        ([np.full((3, 8), np.nan)], None, "patient 0: found NaN"),
        (None, np.zeros((2, 59)), r"found shape \(2, 59\); expected \(patients, 60\)"),
        (None, np.full((2, 60), np.inf), "infinite"),
        (None, pd.DataFrame(np.zeros((1, 2)), columns=["a", "b"]), "0 of the model's 60 genes"),
        ([np.zeros((3, 8))], np.zeros((2, 60)), "found 1 bags of patches and 2 rows"),
        (None, None, "found no patient"),
        ([], None, "found no patient"),
        ([None, np.zeros((3, 8))], None, "patients 0: found nothing"),
        (None, np.full((2, 60), np.nan), "patients 0, 1: found nothing"),
    ],
)
def test_inputs_that_do_not_fit(gimp_run, patches, genes, message):
    with pytest.raises(GimpError, match=message):
        gimp_fast.load(gimp_run).predict(patches, genes)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precision_is_asked_for_or_that_of_training(gimp_run, cohort, precision):
    trained = gimp_fast.load(gimp_run, precision=precision)
    bags, genes = bags_and_genes(cohort, cohort.case_ids[:4])
    expected = gimp_fast.load(gimp_run).predict(bags, genes)
    np.testing.assert_allclose(trained.predict(bags, genes), expected, atol=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
        ({"precision": "fp8"}, "found 'fp8'; expected one of fp32"),
    ],
)
def test_devices_and_precisions_that_are_not_there(gimp_run, options, message):
    with pytest.raises(GimpError, match=message):
        gimp_fast.load(gimp_run, **options)


def changed(file, change) -> None:
    tensors, state = load_checkpoint(file)
    change(tensors, state)
    save_checkpoint(file, tensors, state)


CHANGES = {
    "another-method": (
        lambda t, s: s.update(method="oracle"),
        "method 'oracle'; expected one of",
    ),
    "unknown-setting": (lambda t, s: s["model"].update(colour=1), "cannot build.*colour"),
    "another-size": (lambda t, s: s["model"].update(dim=32), "cannot build.*size mismatch"),
    "lost-weight": (lambda t, s: t.pop("model.head.0.weight"), "cannot build.*Missing key"),
    "no-classes": (lambda t, s: s["cohort"].pop("classes"), "another version.*classes"),
    "no-cohort": (lambda t, s: s.pop("cohort"), "another version.*cohort"),
    "no-scaler": (lambda t, s: t.pop("scaler.mean"), "another version.*scaler.mean"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_checkpoints_of_another_version(gimp_run, tmp_path, name):
    change, message = CHANGES[name]
    run = shutil.copytree(gimp_run, tmp_path / "run")
    changed(run / "checkpoints" / "finetune.safetensors", change)
    with pytest.raises(GimpError, match=message) as caught:
        gimp_fast.load(run)
    assert str(run) in str(caught.value)


GONE = "remove it"
ODD = [
    GONE,
    None,
    1,
    10**9,
    -1,
    1.5,
    True,
    "x",
    "",
    [],
    {},
    [1],
    [[]],
    ["a", "a"],
    {"a": 1},
    10**400,
    "\x1b[2J",
]


@pytest.mark.parametrize("value", ODD, ids=lambda odd: ascii(odd)[:20])
def test_odd_facts_are_one_error_or_harmless(gimp_run, cohort, tmp_path, value):
    """Any value as any fact, of a model or of its export: never another exception."""
    tensors, _ = load_checkpoint(gimp_run / "checkpoints" / "finetune.safetensors")
    whole = gimp_fast.load(gimp_run).facts
    places = [(key,) for key in whole]
    inner = ("cohort", "metrics", "training", "known_patients", "ranges", "model")
    places += [(key, name) for key in inner for name in whole[key]]
    places += [("cohort", "expression", "column"), ("metrics", "cohort", "n")]
    places += [("metrics", "test", "accuracy"), ("metrics", "test", "auc")]
    for number, place in enumerate(places):
        changed = copy.deepcopy(whole)
        inside = changed
        for key in place[:-1]:
            inside = inside[key]
        inside[place[-1]] = value
        if value is GONE:
            del inside[place[-1]]
        message = str(tmp_path)
        try:
            trained = TrainedModel(tensors, changed, tmp_path)
            assert repr(trained)
            predict_cohort([trained], cohort, cohort.case_ids[:1])
            export_model(trained, tmp_path / str(number))
        except GimpError as error:
            message = str(error)
        assert str(tmp_path) in message or str(cohort.path) in message or "precision" in message
        assert "\x1b" not in message


@pytest.mark.parametrize(
    "scaling",
    [
        {"scaler.mean": torch.zeros(59)},
        {"scaler.std": torch.zeros(60)},
        {"scaler.mean": torch.full((60,), torch.nan)},
        {"scaler.std": torch.ones(60, dtype=torch.int64)},
        {"scaler.mean": torch.zeros(1, 60)},
        {"scaler.limit": torch.zeros(())},
        {"scaler.limit": torch.ones(60)},
    ],
    ids=["59", "zero", "nan", "int", "matrix", "no-limit", "limits"],
)
def test_a_scaling_that_does_not_fit(gimp_run, scaling):
    tensors, facts = load_checkpoint(gimp_run / "checkpoints" / "finetune.safetensors")
    with pytest.raises(GimpError, match=r"expected scaler\.mean and scaler\.std of 60 genes"):
        TrainedModel(tensors | scaling, facts, gimp_run)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (["metrics.json"], "stopped in the stage 'finetune' after epoch 1"),
        (["checkpoints/finetune.safetensors"], "expected one that has finished fine-tuning"),
        (["checkpoints"], "holds no checkpoint yet"),
        (["environment.json"], "environment.json: missing"),
        (["config.yaml", "checkpoints"], "found a folder without config.yaml"),
        ([""], "found no such folder"),
    ],
)
def test_runs_that_are_not_whole(gimp_run, tmp_path, missing, message):
    run = shutil.copytree(gimp_run, tmp_path / "run")
    for name in missing:
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(GimpError, match=message):
        gimp_fast.load(run)


def test_a_damaged_checkpoint_is_named(gimp_run, tmp_path):
    run = shutil.copytree(gimp_run, tmp_path / "run")
    file = run / "checkpoints" / "finetune.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(GimpError, match="damaged: it does not match its checksum"):
        gimp_fast.load(run)
    (run / "metrics.json").write_text(json.dumps([1]))
    shutil.copy(gimp_run / "checkpoints" / "finetune.safetensors", file)
    with pytest.raises(GimpError, match=r"metrics\.json: .*found a list; expected an object"):
        gimp_fast.load(run)


def test_a_checkpoint_of_an_earlier_version_has_no_limit(gimp_run):
    tensors, facts = load_checkpoint(gimp_run / "checkpoints" / "finetune.safetensors")
    assert TrainedModel(tensors, facts, gimp_run).scaler.limit == 10
    del tensors["scaler.limit"]
    assert TrainedModel(tensors, facts, gimp_run).scaler.limit is None
