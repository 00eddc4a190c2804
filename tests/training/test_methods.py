"""Every model is trained by the same engine: its stages, its modalities, its checkpoints."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from gimp_fast.data import open_cohort
from gimp_fast.errors import FaultError, StoppedError
from gimp_fast.models import available, build, model_class
from gimp_fast.runs.checkpoint import load_checkpoint, under_prefix
from gimp_fast.training import TrainConfig, load_config, train
from gimp_fast.training.memory import memory_report
from gimp_fast.training.stage_run import StageRun
from gimp_fast.training.stages import stages_of

SHORT = [
    "genes.epochs=1", "pretrain.epochs=2", "pretrain.window=16", "pretrain.batch_size=8",
    "finetune.epochs=2", "finetune.batch_size=8", "bootstrap=20", "threads=1", "device=cpu",
]  # fmt: skip
SMALL = {
    "dim": 16, "heads": 2, "num_landmarks": 8, "gene_fragments": 8, "gene_groups": 4,
    "head_hidden": 16, "attention_dim": 8, "hidden": 16,
}  # fmt: skip


def config_of(method: str, *overrides: str) -> TrainConfig:
    fields = model_class(method).settings_class.model_fields
    sizes = [f"model.{name}={value}" for name, value in SMALL.items() if name in fields]
    return load_config(overrides=[f"method={method}", *SHORT, *sizes, *overrides])


def silent(text: str) -> None:
    """No log."""


def rows_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").open()]


@pytest.mark.parametrize("method", available())
def test_every_method_trains_evaluates_and_can_be_rebuilt(method, cohort_folder, tmp_path):
    config, run = config_of(method), tmp_path / "run"
    metrics = train(config, cohort_folder, run, log=silent)
    assert metrics["method"] == method
    assert metrics["modalities"] == model_class(method).reads[0]
    stages = list(dict.fromkeys(row["stage"] for row in rows_of(run)))
    assert stages == [stage.name for stage in stages_of(config)]
    assert all(np.isfinite(list(row["val"].values())).all() for row in rows_of(run))
    predictions = pd.read_csv(run / "predictions.csv")
    assert len(predictions) == 16
    probabilities = predictions.filter(like="prob_").to_numpy()
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-4)

    tensors, state = load_checkpoint(run / "checkpoints" / "finetune.safetensors")
    model = build(state["method"], state["model"])
    model.load_state_dict(under_prefix("model", tensors))


@pytest.mark.parametrize(
    ("method", "stages"),
    [
        ("gimp", ["genes", "pretrain", "finetune"]),
        ("abmil", ["finetune"]),
        ("snn", ["finetune"]),
        ("mcat", ["finetune"]),
        ("survpath", ["finetune"]),
        ("pathomic_fusion", ["genes", "finetune"]),
        ("mgca", ["pretrain", "finetune"]),
    ],
)
def test_a_method_has_the_stages_that_it_knows(method, stages):
    assert [stage.name for stage in stages_of(config_of(method))] == stages


@pytest.mark.parametrize("method", ["dsmil", "biovil"])
def test_a_stopped_comparator_goes_on_to_the_same_weights(
    method, cohort_folder, tmp_path, monkeypatch
):
    config = config_of(method)
    train(config, cohort_folder, tmp_path / "quiet", log=silent)
    original, count = StageRun._step, iter(range(1000))

    def stopping(self, *args):
        if next(count) == 4:
            self.stops.requested = "SIGUSR1"
        return original(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(StageRun, "_step", stopping)
        with pytest.raises(StoppedError):
            train(config, cohort_folder, tmp_path / "stopped", log=silent)
    train(config, cohort_folder, tmp_path / "stopped", resume=True, log=silent)
    quiet, stopped = (
        load_checkpoint(tmp_path / run / "checkpoints" / "finetune.safetensors")[0]
        for run in ("quiet", "stopped")
    )
    assert all(torch.equal(quiet[name], stopped[name]) for name in quiet)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", available())
def test_every_method_trains_on_a_gpu(method, precision, cohort_folder, tmp_path):
    config = config_of(method, "device=cuda", f"precision={precision}")
    metrics = train(config, cohort_folder, tmp_path / "run", log=silent)
    assert metrics["test"]["n"] == 8


def test_triplets_of_slides_alone_leave_genes_out(cohort_folder, tmp_path):
    """The same windows: only what the triplets are mined of differs."""
    rows = {}
    for triplets in ("patient", "slide"):
        config = config_of("gimp", f"pretrain.triplets={triplets}", "finetune.epochs=1")
        train(config, cohort_folder, tmp_path / triplets, stages=["genes", "pretrain"], log=silent)
        rows[triplets] = rows_of(tmp_path / triplets)[-1]["val"]
    assert rows["patient"]["triplet"] != pytest.approx(rows["slide"]["triplet"], rel=1e-3)


@pytest.mark.parametrize(
    ("overrides", "where"),
    [
        (["method=tabmil"], "method"),
        (["method=abmil", "modalities=both"], "modalities"),
        (["method=snn", "modalities=slide"], "modalities"),
        (["method=abmil", "model.heads=3"], "model.heads"),
    ],
    ids=["unknown", "slide-only", "rna-only", "foreign-setting"],
)
def test_a_configuration_that_no_method_has_is_refused(overrides, where):
    with pytest.raises(FaultError) as caught:
        load_config(overrides=overrides)
    assert [fault.where for fault in caught.value.faults] == [f"configuration: {where}"]


def test_a_presets_architecture_is_for_gimp_and_its_relatives():
    assert load_config("small", overrides=["method=mgca"]).model.dim == 64
    assert load_config("small", overrides=["method=mgca", "model.dim=32"]).model.dim == 32
    assert load_config("small", overrides=["method=abmil"]).model.dim == 512
    assert load_config("small", overrides=["method=abmil"]).finetune.lr == 3e-4


@pytest.mark.parametrize(("method", "differs"), [("snn", True), ("gimp", False)])
def test_noise_is_for_gene_encoders_that_are_trained(method, differs, cohort_folder, tmp_path):
    losses = []
    for noise in (0.0, 2.0):
        config = config_of(method, f"finetune.noise={noise}", "pretrain.epochs=0")
        train(config, cohort_folder, tmp_path / str(noise), log=silent)
        losses.append([r["train"]["loss"] for r in rows_of(tmp_path / str(noise))])
    assert (losses[0] != losses[1]) is differs


@pytest.mark.parametrize("method", available())
def test_memory_is_predicted_for_every_method(method, cohort_folder):
    report = memory_report(config_of(method), open_cohort(cohort_folder))
    steps = [line for line in report if "batch" in line]
    assert any(line.startswith("finetune") for line in steps)
    assert any(line.startswith("pretrain") for line in steps) == (
        model_class(method).pretraining is not None
    )
