"""What happens in and around a step: divergence, precision, times, profiles, one stage alone."""

from __future__ import annotations

import json
import signal
import sys
import threading

import pytest
import torch
from builders.calls import Calls

from gimp_fast import native
from gimp_fast.data import open_cohort
from gimp_fast.errors import GimpError
from gimp_fast.models.gimp import GiMP
from gimp_fast.runs.checkpoint import load_checkpoint
from gimp_fast.training import load_config, train
from gimp_fast.training.sampling import PatientReader
from gimp_fast.training.stages import FinetuneStage, PretrainStage
from gimp_fast.training.stops import StopRequests

TINY = [
    "model.dim=16", "model.heads=2", "model.num_landmarks=8", "model.gene_fragments=8",
    "model.gene_groups=4", "model.head_hidden=16", "genes.epochs=1", "pretrain.epochs=1",
    "pretrain.window=32", "pretrain.batch_size=8", "finetune.epochs=2", "finetune.batch_size=8",
    "bootstrap=50", "threads=1", "device=cpu",
]  # fmt: skip


def config(*overrides):
    return load_config(overrides=[*TINY, *overrides])


def rows_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").open()]


def poison(monkeypatch, stage, what):
    """The second step of a stage has a loss, or a gradient, that is not a number."""
    original, steps = stage.losses, iter(range(1000))

    def losses(self, batch, share):
        found = original(self, batch, share)
        if next(steps) == 1:
            if what == "loss":
                found["loss"] = found["loss"] * float("nan")
            else:
                found["loss"].register_hook(lambda grad: grad * float("inf"))
        return found

    monkeypatch.setattr(stage, "losses", losses)


@pytest.mark.skipif(native.load().cpu != native.AVAILABLE, reason=native.load().cpu)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_steps_of_pretraining_reconstruct_with_the_fused_operator(
    cohort_folder, tmp_path, monkeypatch, precision
):
    monkeypatch.delenv("GIMP_FAST_BACKEND", raising=False)
    original, found = PretrainStage.losses, []

    def losses(self, batch, share):
        with Calls() as calls:
            losses = original(self, batch, share)
        found.append(calls.found["gimp_fast::masked_reconstruction_rows"])
        return losses

    monkeypatch.setattr(PretrainStage, "losses", losses)
    short = (
        "genes.epochs=0",
        "finetune.freeze_genes=false",
        "finetune.epochs=1",
        f"precision={precision}",
    )
    train(config(*short), cohort_folder, tmp_path / "run", log=lambda text: None)
    assert found
    assert set(found) == {1}


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_not_finite_stops_the_run_and_names_its_slides(
    cohort_folder, tmp_path, monkeypatch, what
):
    poison(monkeypatch, PretrainStage, what)
    with pytest.raises(GimpError, match=rf"'pretrain', step 1: found a {what}.*DX1") as error:
        train(config(), cohort_folder, tmp_path / "run", log=lambda text: None)
    assert str(error.value).count("SYNT-00-") >= 16  # eight patients and their slides
    _, state = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.safetensors")
    assert state["stage"] == "genes"


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_left_out_on_request(
    cohort_folder, tmp_path, monkeypatch, what
):
    poison(monkeypatch, FinetuneStage, what)
    said = []
    train(config("on_nonfinite=skip"), cohort_folder, tmp_path / "run", log=said.append)
    assert sum("the step was left out" in text for text in said) == 1
    rows = rows_of(tmp_path / "run")
    assert [row.get("skipped_steps", 0) for row in rows] == [0, 0, 1, 0]
    assert all(torch.isfinite(torch.tensor(list(row["train"].values()))).all() for row in rows)


def test_fp16_scales_its_loss_and_keeps_the_scale(cohort_folder, tmp_path):
    train(config("precision=fp16"), cohort_folder, tmp_path / "run", log=lambda text: None)
    _, state = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.safetensors")
    assert state["loss_scale"]["scale"] > 1
    assert all(row["train"]["loss"] < 100 for row in rows_of(tmp_path / "run"))


def test_gradients_are_clipped(cohort_folder, tmp_path):
    for norm in ("null", "1e-9"):
        overrides = [f"{stage}.clip_norm={norm}" for stage in ("genes", "finetune")]
        overrides += ["genes.weight_decay=0", "genes.lr=1e-6"]
        train(config(*overrides), cohort_folder, tmp_path / norm, log=lambda text: None)
    a, b = (
        load_checkpoint(tmp_path / norm / "checkpoints" / "genes.safetensors")[0]
        for norm in ("null", "1e-9")
    )
    assert not all(torch.equal(a[key], b[key]) for key in a)


def test_the_patients_of_a_step_are_computed_together(cohort_folder, tmp_path, monkeypatch):
    sizes = []
    original = GiMP.vectors

    def vectors(self, inputs):
        if torch.is_grad_enabled():
            sizes.append(len(inputs))
        return original(self, inputs)

    monkeypatch.setattr(GiMP, "vectors", vectors)
    train(config("finetune.epochs=1"), cohort_folder, tmp_path / "run", log=lambda text: None)
    assert sizes == [8, 8, 8]  # 24 patients


def test_every_epoch_says_where_its_time_went(cohort_folder, tmp_path):
    train(config(), cohort_folder, tmp_path / "run", log=lambda text: None)
    for row in rows_of(tmp_path / "run"):
        assert set(row["times"]) == {"data", "forward", "backward", "optimizer"}
        assert all(seconds >= 0 for seconds in row["times"].values())
        assert sum(row["times"].values()) <= row["seconds"] + 0.01


def test_the_environment_of_a_run(cohort_folder, tmp_path):
    train(config(), cohort_folder, tmp_path / "run", log=lambda text: None)
    found = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert len(found["config_sha256"]) == 64
    assert found["ranks"] == 1
    assert {"git_revision", "command", "packages", "gpu", "threads"} <= set(found)


def test_profiles_on_request(cohort_folder, tmp_path):
    train(config("profile=1"), cohort_folder, tmp_path / "run", log=lambda text: None)
    written = {p.parent.name for p in (tmp_path / "run" / "profile").rglob("*.json")}
    assert written == {"pretrain", "finetune"}  # the one epoch of genes is over too soon


def test_wandb_that_is_not_installed_is_said(cohort_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(GimpError, match="pip install wandb"):
        train(config("wandb=mine"), cohort_folder, tmp_path / "run", log=lambda text: None)
    assert not (tmp_path / "run" / "config.yaml").exists()


class FakeRun:
    def __init__(self, seen):
        self.log = lambda values, step: seen.append((step, values))
        self.finish = lambda: seen.append("finished")


def test_wandb_receives_every_epoch(cohort_folder, tmp_path, monkeypatch):
    seen = []

    class Wandb:
        @staticmethod
        def init(**options):
            seen.append(options["project"])
            return FakeRun(seen)

    monkeypatch.setitem(sys.modules, "wandb", Wandb)
    train(config("wandb=mine"), cohort_folder, tmp_path / "run", log=lambda text: None)
    assert seen[0] == "mine"
    assert seen[-1] == "finished"
    assert [step for step, _ in seen[1:-1]] == [1, 2, 3, 4]
    assert "pretrain/loss/val" in seen[2][1]


def test_stages_alone_end_as_all_together(cohort_folder, tmp_path):
    train(config(), cohort_folder, tmp_path / "all", log=lambda text: None)
    one = tmp_path / "one"
    for stage in ("genes", "pretrain", "finetune"):
        found = train(
            config(), cohort_folder, one, stages=[stage], resume=True, log=lambda text: None
        )
        assert (one / "metrics.json").exists() == (stage == "finetune")
        assert stage == "finetune" or set(found) == {stage}
    a, b = (load_checkpoint(run / "checkpoints" / "last.safetensors")[0]
            for run in (tmp_path / "all", one))  # fmt: skip
    assert all(torch.equal(a[key], b[key]) for key in a)
    with pytest.raises(GimpError, match="stages: found nothing"):
        train(config(), cohort_folder, one, stages=["nothing"], resume=True)


@pytest.mark.parametrize(
    ("stages", "missing"),
    [(["finetune"], "genes"), (["pretrain"], "genes"), (["genes", "finetune"], "pretrain")],
    ids=lambda value: "-".join(value) if isinstance(value, list) else value,
)
def test_a_stage_does_not_begin_without_the_ones_before(stages, missing, cohort_folder, tmp_path):
    """It would use, and freeze, encoders as they were drawn."""
    with pytest.raises(GimpError, match=rf"stage '{missing}'.*or set {missing}\.epochs=0"):
        train(config(), cohort_folder, tmp_path / "run", stages=stages, log=lambda text: None)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_gene_encoder_that_nothing_trains_is_not_frozen():
    with pytest.raises(
        GimpError, match=r"genes\.epochs=1 or more, or finetune\.freeze_genes=false"
    ):
        config("genes.epochs=0")
    config("genes.epochs=0", "finetune.freeze_genes=false")
    config("genes.epochs=0", "modalities=slide")
    config("genes.epochs=0", "method=mgca")


def test_signals_outside_the_main_thread_are_none_of_ours():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def elsewhere():
        with StopRequests() as stops:
            seen.append(stops.requested)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [None]
    with StopRequests() as stops:
        signal.raise_signal(signal.SIGUSR1)
        assert stops.requested == "SIGUSR1"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_a_compiled_step_trains_the_same(cohort_folder, tmp_path):
    pytest.importorskip("torch._dynamo")
    runs = []
    for compiled in ("true", "false"):
        overrides = [
            "genes.epochs=0",
            "finetune.freeze_genes=false",
            "pretrain.epochs=0",
            f"compile={compiled}",
        ]
        overrides += ["model.dropout=0", "model.head_dropout=0", "model.gene_dropout=0"]
        overrides += ["model.num_layers=1"]  # it is compiled as often as there are layers
        run = tmp_path / compiled
        train(config(*overrides), cohort_folder, run, log=lambda text: None)
        runs.append(rows_of(run))
    for a, b in zip(*runs, strict=True):
        assert a["train"]["loss"] == pytest.approx(b["train"]["loss"], rel=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("workers", [0, 2])
def test_all_stages_on_a_gpu(cohort_folder, tmp_path, precision, workers):
    settings = [f"precision={precision}", f"workers={workers}", "device=cuda"]
    metrics = train(config(*settings), cohort_folder, tmp_path / "run", log=lambda text: None)
    assert metrics["test"]["n"] == 8
    for row in rows_of(tmp_path / "run"):
        assert all(torch.isfinite(torch.tensor(list(row["train"].values()))))
        assert set(row["times"]) == {"data", "forward", "backward", "optimizer"}


@pytest.mark.gpu
def test_a_run_on_a_gpu_goes_on_after_a_signal(cohort_folder, tmp_path, monkeypatch):
    from gimp_fast.errors import StoppedError
    from gimp_fast.training.stage_run import StageRun

    original, steps = StageRun._step, iter(range(1000))

    def signalling(self, *args):
        if next(steps) == 4:
            signal.raise_signal(signal.SIGTERM)
        original(self, *args)

    monkeypatch.setattr(StageRun, "_step", signalling)
    changed = config("device=cuda", "precision=bf16")
    with pytest.raises(StoppedError):
        train(changed, cohort_folder, tmp_path / "run", log=lambda text: None)
    found = train(changed, cohort_folder, tmp_path / "run", resume=True, log=lambda text: None)
    assert found["test"]["n"] == 8


def test_a_slide_on_which_the_model_overflows_is_named_alone(cohort_folder, tmp_path, monkeypatch):
    read = PatientReader.patches
    wrong = open_cohort(cohort_folder).split("split_0")["train"][3]

    def patches(self, case_id):
        return read(self, case_id) * (1e38 if case_id == wrong else 1)

    monkeypatch.setattr(PatientReader, "patches", patches)
    settings = load_config(overrides=["method=mean_pool", "threads=1", "device=cpu"])
    with pytest.raises(GimpError) as error:
        train(settings, cohort_folder, tmp_path / "run", log=lambda text: None)
    named = str(error.value).partition("the model overflows on ")[2]
    assert named.startswith(f"{wrong} (slide")
    assert "largest feature" in named
    assert named.count("SYNT-") == 1 + len(open_cohort(cohort_folder).bag(wrong).slide_ids)
