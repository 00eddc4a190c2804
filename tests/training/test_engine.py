"""Whole runs: what they write, killing and resuming, provenance, refusals."""

from __future__ import annotations

import csv
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from gimp_fast.errors import GimpError, StoppedError
from gimp_fast.report import write_report
from gimp_fast.runs.checkpoint import load_checkpoint, save_checkpoint
from gimp_fast.training import load_config, train
from gimp_fast.training.engine import hint_for_missing
from gimp_fast.training.stage_run import StageRun, learning_rate
from gimp_fast.training.stage_settings import PretrainSettings

# Trains on the small cohort in seconds.
TINY = [
    "model.dim=16",
    "model.heads=2",
    "model.num_landmarks=8",
    "model.gene_fragments=8",
    "model.gene_groups=4",
    "model.head_hidden=16",
    "genes.epochs=3",
    "genes.lr=3e-3",
    "pretrain.epochs=2",
    "pretrain.window=32",
    "pretrain.batch_size=12",
    "pretrain.lr=1e-3",
    "finetune.epochs=3",
    "finetune.lr=3e-3",
    "bootstrap=50",
    "threads=1",
]


def config(*overrides):
    return load_config("paper", overrides=[*TINY, *overrides])


def silent(text):
    """No log."""


@pytest.fixture(scope="module")
def finished(cohort_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    train(config(), cohort_folder, out, log=silent)
    return out


# Several steps an epoch: 24 patients.
SMALL_STEPS = ["genes.batch_size=8", "genes.epochs=1", "pretrain.batch_size=8"]
SMALL_STEPS += ["pretrain.epochs=2", "finetune.batch_size=8", "finetune.epochs=2"]
SMALL_STEPS += ["finetune.modality_dropout=0.3"]


@pytest.fixture(scope="module")
def finished_small_steps(cohort_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("small-steps") / "run"
    train(config(*SMALL_STEPS), cohort_folder, out, log=silent)
    return out


def weights(run, name="finetune"):
    return load_checkpoint(run / "checkpoints" / f"{name}.safetensors")


def assert_same_result(run, expected):
    for name in ("metrics.json", "predictions.csv"):
        assert (run / name).read_bytes() == (expected / name).read_bytes()
    for name in ("genes", "pretrain", "finetune", "last"):
        a, b = weights(run, name)[0], weights(expected, name)[0]
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), name
    rows_a, rows_b = (
        [json.loads(line) | {"seconds": 0, "times": {}} for line in (r / "metrics.jsonl").open()]
        for r in (run, expected)
    )
    assert rows_a == rows_b


def test_the_run_folder_holds_what_it_promises(finished, cohort):
    saved = yaml.safe_load((finished / "config.yaml").read_text())
    assert saved["pretrain"]["window"] == 32
    assert json.loads((finished / "environment.json").read_text())["packages"]["torch"]
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").open()]
    assert [(r["stage"], r["epoch"]) for r in rows] == (
        [("genes", i) for i in (1, 2, 3)]
        + [("pretrain", i) for i in (1, 2)]
        + [("finetune", i) for i in (1, 2, 3)]
    )
    assert {"loss", "reconstruction", "triplet"} == set(rows[3]["train"])
    metrics = json.loads((finished / "metrics.json").read_text())
    split = cohort.split("split_0")
    assert metrics["test"]["n"] == len(split["test"])
    with (finished / "predictions.csv").open(newline="") as file:
        predictions = list(csv.DictReader(file))
    assert [p["case_id"] for p in predictions] == split["val"] + split["test"]
    hits = [p["label"] == p["prediction"] for p in predictions if p["split"] == "test"]
    assert sum(hits) == metrics["test"]["accuracy"]["k"]
    with np.load(finished / "embeddings.npz", allow_pickle=False) as arrays:
        assert arrays["pretrain"].shape == arrays["finetune"].shape == (40, 32)
        assert list(arrays["case_id"]) == split["train"] + split["val"] + split["test"]
    assert list((finished / "tensorboard").iterdir())


def test_the_checkpoint_knows_what_the_model_needs(finished, cohort):
    tensors, state = weights(finished)
    assert tuple(state["cohort"]["gene_ids"]) == cohort.gene_ids
    assert state["cohort"]["classes"] == list(cohort.classes)
    assert state["cohort"]["patch_order"] == cohort.patch_order
    train_expression = cohort.expression(cohort.split("split_0")["train"])
    np.testing.assert_allclose(tensors["scaler.mean"], train_expression.mean(0), rtol=1e-5)
    assert tensors["scaler.limit"] == config().gene_limit
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").open()][5:]
    best = max(rows, key=lambda r: (r["val"]["accuracy"], -r["val"]["loss"]))
    assert state["epoch"] == best["epoch"]


def test_a_stage_keeps_what_the_one_before_learned(finished):
    genes, pretrain, finetune = (weights(finished, s)[0] for s in ("genes", "pretrain", "finetune"))
    encoder = [k for k in genes if k.startswith("model.gene_encoder.")]
    assert encoder
    for key in encoder:
        assert torch.equal(genes[key], pretrain[key])
        assert torch.equal(genes[key], finetune[key])
    key = "model.aggregator.embed.weight"
    assert not torch.equal(genes[key], pretrain[key])
    assert not torch.equal(pretrain[key], finetune[key])


class StopHereError(Exception):
    pass


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 7])
@pytest.mark.parametrize("moment", ["after-row", "after-stage-file", "after-checkpoint"])
def test_resume_after_a_stop_at_any_epoch_is_bitwise(
    rows, moment, finished, cohort_folder, tmp_path, monkeypatch
):
    """Stops once between each two files that an epoch writes."""
    from gimp_fast.runs import checkpoint
    from gimp_fast.training import stage_run

    out, original = tmp_path / "run", checkpoint.save_checkpoint

    def stopping(path, tensors, state):
        is_last = path.stem == "last"
        if state["rows"] == rows and (moment == "after-row" or is_last):
            if moment == "after-checkpoint":
                original(path, tensors, state)
            raise StopHereError
        original(path, tensors, state)

    for module in (checkpoint, stage_run):
        monkeypatch.setattr(module, "save_checkpoint", stopping)
    with pytest.raises(StopHereError):
        train(config(), cohort_folder, out, log=silent)
    for module in (checkpoint, stage_run):
        monkeypatch.setattr(module, "save_checkpoint", original)
    train(config(), cohort_folder, out, resume=True, log=silent)
    assert_same_result(out, finished)


@pytest.mark.parametrize(
    ("step", "workers"),
    [
        *((step, 0) for step in (1, 2, 4, 7, 10, 12, 14)),
        # Starting reading processes takes seconds: one step of each stage has them.
        *(pytest.param(step, 1, marks=pytest.mark.slow) for step in (2, 7, 14)),
    ],
)
def test_resume_after_a_signal_at_any_step_is_bitwise(
    step, workers, finished_small_steps, cohort_folder, tmp_path, monkeypatch
):
    """Raises a real signal after so many steps; dropout and modality dropout are on."""
    out, original, steps = tmp_path / "run", StageRun._step, itertools.count(1)

    def signalling(self, *args):
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, *args)

    monkeypatch.setattr(StageRun, "_step", signalling)
    changed = config(*SMALL_STEPS, f"workers={workers}")
    with pytest.raises(StoppedError, match="stopped by SIGTERM"):
        train(changed, cohort_folder, out, log=silent)
    _, state = weights(out, "last")
    train(changed, cohort_folder, out, resume=True, log=silent)
    assert_same_result(out, finished_small_steps)
    assert state["step"] == step % 3  # three steps an epoch, of which the last ends it


@pytest.mark.slow
def test_killed_processes_resume_to_the_same_result(finished, cohort_folder, tmp_path):
    out, rng = tmp_path / "run", random.Random(0)
    command = [sys.executable, "-m", "gimp_fast.train", "--data", cohort_folder, "--out", out]
    command += ["--preset", "paper", "--resume"]
    for override in TINY:
        command += ["--set", override]
    metrics_file, killed, seen = out / "metrics.jsonl", 0, 0

    def rows():
        return metrics_file.read_bytes().count(b"\n") if metrics_file.exists() else 0

    for _ in range(3):
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Past the epochs of the process before, and then at any point of what it does next.
        while rows() <= seen and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        seen = rows()
    assert killed
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_same_result(out, finished)


@pytest.mark.slow
def test_the_loop_of_kills_in_small(tmp_path):
    script = Path(__file__).with_name("kill_loop.py")
    done = subprocess.run(
        [sys.executable, script, "--kills", "3"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every run ended as the quiet one" in done.stdout
    assert "kill while saving: hit" in done.stdout


def test_a_finished_run_resumes_to_itself(finished, cohort_folder, tmp_path):
    before = (finished / "metrics.json").read_bytes()
    train(config(), cohort_folder, finished, resume=True, log=silent)
    assert (finished / "metrics.json").read_bytes() == before


@pytest.mark.parametrize(
    ("modalities", "stages"),
    [("slide", {"pretrain", "finetune"}), ("rna", {"genes", "finetune"})],
)
def test_single_modality_runs(modalities, stages, cohort_folder, tmp_path):
    train(config(f"modalities={modalities}"), cohort_folder, tmp_path / "run", log=silent)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert {row["stage"] for row in rows} == stages


def test_skipped_stages_modality_dropout_and_bf16(cohort_folder, tmp_path):
    changes = [
        "genes.epochs=0",
        "pretrain.epochs=0",
        "finetune.freeze_genes=false",
        "finetune.modality_dropout=0.5",
    ]
    changes += ["precision=bf16", "finetune.freeze_genes=false", "finetune.clip_norm=1"]
    metrics = train(config(*changes), cohort_folder, tmp_path / "run", log=silent)
    assert 0 <= metrics["test"]["accuracy"]["value"] <= 1


def test_patients_take_part_with_what_they_have(cohort, tmp_path, monkeypatch):
    """Every fifth patient has no RNA, every seventh no slides."""
    without_rna, without_slides = set(cohort.case_ids[::5]), set(cohort.case_ids[1::7])
    without_slides -= without_rna
    monkeypatch.setattr(type(cohort), "has_expression", lambda self, case: case not in without_rna)
    monkeypatch.setattr(type(cohort), "has_slides", lambda self, case: case not in without_slides)
    metrics = train(config("finetune.modality_dropout=0.2"), cohort, tmp_path / "run", log=silent)
    assert metrics["cohort"]["n"] == {"train": 24, "val": 8, "test": 8}
    slide_only = train(config("modalities=slide"), cohort, tmp_path / "slide", log=silent)
    assert sum(slide_only["cohort"]["n"].values()) == 40 - len(without_slides)


def test_a_part_without_the_modality_is_told(cohort, tmp_path, monkeypatch):
    test_part = set(cohort.split("split_0")["test"])
    monkeypatch.setattr(type(cohort), "has_expression", lambda self, case: case not in test_part)
    with pytest.raises(GimpError, match="modality 'rna' in train, val only"):
        train(config("modalities=rna"), cohort, tmp_path / "run", log=silent)


def with_parts(cohort, monkeypatch, lacking):
    """The cohort, whose part of this name lacks patients of the second class."""
    split = cohort.split("split_0")
    changed = dict(split)
    changed[lacking] = [case for case in split[lacking] if cohort.label(case) == 0]
    monkeypatch.setattr(type(cohort), "split", lambda self, name: changed)
    return cohort


def test_a_class_without_training_patients_stops_the_run(cohort, tmp_path, monkeypatch):
    changed = with_parts(cohort, monkeypatch, "train")
    with pytest.raises(GimpError, match=r"'split_0': all 12 train patients are 'SYN-A' \('SYN-B'"):
        train(config(), changed, tmp_path / "run", log=silent)
    assert not (tmp_path / "run").exists()


def test_an_epoch_is_not_chosen_by_an_auc_that_does_not_exist(cohort, tmp_path, monkeypatch):
    changed = with_parts(cohort, monkeypatch, "val")
    with pytest.raises(GimpError, match=r"expected every class with finetune\.select=auc"):
        train(config("finetune.select=auc"), changed, tmp_path / "run", log=silent)


def test_a_test_part_of_one_class_is_told(cohort, tmp_path, monkeypatch):
    lines = []
    changed = with_parts(cohort, monkeypatch, "test")
    short = (
        "genes.epochs=0",
        "pretrain.epochs=0",
        "finetune.freeze_genes=false",
        "finetune.epochs=1",
    )
    metrics = train(config(*short), changed, tmp_path / "run", log=lines.append)
    text = "\n".join(lines)
    assert "caution: all 4 test patients are 'SYN-A'" in text
    assert "AUC undefined" in text
    assert metrics["test"]["auc"] is None
    assert metrics["cohort"]["by_class"]["test"] == {"SYN-A": 4, "SYN-B": 0}
    assert len(metrics["cautions"]) == 1
    assert "test patients are" in write_report(tmp_path / "run").read_text(encoding="utf-8")


def test_what_helps_patients_who_lack_a_modality_is_said(cohort, monkeypatch):
    split = cohort.split(cohort.only_split())
    assert hint_for_missing(config(), cohort, split) is None  # nobody lacks any
    lacks = set(split["train"][:3])
    monkeypatch.setattr(type(cohort), "has_expression", lambda self, case: case not in lacks)
    assert "3 of 40 lack RNA. --set model.missing=heads" in hint_for_missing(
        config(), cohort, split
    )
    for others in (["model.missing=heads"], ["modalities=rna"],
                   ["genes.epochs=0", "finetune.freeze_genes=false"]):  # fmt: skip
        assert hint_for_missing(config(*others), cohort, split) is None
    assert hint_for_missing(load_config(overrides=["method=porpoise"]), cohort, split) is None


def test_a_folder_that_holds_a_run_is_left_alone(finished, cohort_folder):
    before = {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()}
    with pytest.raises(GimpError, match="holds a run already"):
        train(config(), cohort_folder, finished, log=silent)
    with pytest.raises(GimpError, match=r"finetune.lr: saved 0.003, asked 0.1"):
        train(config("finetune.lr=0.1"), cohort_folder, finished, resume=True, log=silent)
    assert {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["split=other"], "no split 'other'"),
        (["device=tpu9"], "device 'tpu9'"),
        (["model.heads=3"], r"heads \(3\) must divide dim \(16\)"),
        (["model.gene_fragments=61"], "got 4, 61, 60"),
    ],
)
def test_bad_requests_are_told(changes, message, cohort_folder, tmp_path):
    with pytest.raises(GimpError, match=message):
        train(config(*changes), cohort_folder, tmp_path / "run", log=silent)
    assert not (tmp_path / "run").exists()


def test_divergence_names_the_patients(cohort_folder, tmp_path):
    with pytest.raises(GimpError, match=r"loss of (nan|inf) on patients SYN"):
        train(config("genes.lr=1e30", "genes.epochs=20"), cohort_folder, tmp_path / "r", log=silent)


def test_a_truncated_checkpoint_is_named(tmp_path):
    file = tmp_path / "last.safetensors"
    save_checkpoint(file, {"a": torch.ones(100)}, {"epoch": 1})
    assert load_checkpoint(file)[1] == {"epoch": 1}
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(GimpError, match=r"last\.safetensors: not a readable checkpoint"):
        load_checkpoint(file)


def test_learning_rate_warms_up_and_falls_along_a_cosine():
    settings = PretrainSettings(epochs=10, lr=1.0, warmup_epochs=2)
    values = [learning_rate(settings, step, 5) for step in range(50)]
    assert values[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert values[10] == 1.0
    assert values[30] == pytest.approx(0.5)
    assert values[10:] == sorted(values[10:], reverse=True)
    assert values[-1] < 0.01
