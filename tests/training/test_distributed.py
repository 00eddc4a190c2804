"""Several ranks find what one process finds on the whole batch; a lost rank is told clearly."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.cohorts import cohort_of_gaps

from gimp_fast.cli import EXIT_BAD_INPUT, EXIT_STOPPED
from gimp_fast.runs.checkpoint import load_checkpoint
from gimp_fast.training import load_config, train
from gimp_fast.training.distributed import ALONE, Share

# Without dropout, whose random numbers cannot be those of one process.
SETTINGS = [
    "model.dim=16", "model.heads=2", "model.num_landmarks=8", "model.gene_fragments=8",
    "model.gene_groups=4", "model.head_hidden=16", "model.dropout=0", "model.gene_dropout=0",
    "model.head_dropout=0", "genes.epochs=2", "pretrain.epochs=2", "pretrain.window=32",
    "pretrain.batch_size=7", "pretrain.mining=all", "pretrain.balance=true", "finetune.epochs=2",
    "finetune.batch_size=6", "finetune.modality_dropout=0.3", "genes.clip_norm=1", "bootstrap=50",
    "threads=1", "device=cpu",
]  # fmt: skip


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(data: Path, out: Path, ranks: int, *extra: str) -> list[subprocess.Popen]:
    """The processes that torchrun would start, one a rank."""
    argv = [sys.executable, "-m", "gimp_fast.train", "--data", str(data), "--out", str(out)]
    argv += ["--preset", "paper", "--resume"]
    argv += [part for setting in (*SETTINGS, *extra) for part in ("--set", setting)]
    shared = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            argv,
            cwd=out.parent,
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]


def finish(processes: list[subprocess.Popen]) -> tuple[list[int], list[str]]:
    printed = [process.communicate(timeout=300)[0] for process in processes]
    return [process.returncode for process in processes], printed


@pytest.fixture(scope="module")
def alone(cohort_folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    train(load_config("paper", overrides=SETTINGS), cohort_folder, out, log=lambda text: None)
    return out


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").open()]


def assert_close(
    run: Path, expected: Path, stages: tuple[str, ...] = ("genes", "pretrain", "finetune")
) -> None:
    for name in stages:
        a, b = (load_checkpoint(x / "checkpoints" / f"{name}.safetensors") for x in (run, expected))
        assert a[1]["epoch"] == b[1]["epoch"]
        for key in b[0]:
            torch.testing.assert_close(a[0][key], b[0][key], rtol=2e-3, atol=2e-5, msg=key)
    for found, wanted in zip(rows_of(run), rows_of(expected), strict=True):
        for part in ("train", "val"):
            for key, value in wanted[part].items():
                assert found[part][key] == pytest.approx(value, rel=1e-4, abs=1e-5), (part, key)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_train_what_one_process_trains(alone, cohort_folder, tmp_path, ranks):
    codes, printed = finish(start(cohort_folder, tmp_path / "run", ranks))
    assert codes == [0] * ranks, printed
    assert_close(tmp_path / "run", alone)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test"]["n"] == 8
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["ranks"] == ranks
    assert "test: accuracy" in printed[0]
    assert all("test: accuracy" not in text for text in printed[1:])


@pytest.mark.slow
def test_ranks_align_slides_with_the_genes_of_all_patients(cohort_folder, tmp_path):
    """What is contrasted comes from the whole batch, whoever holds it."""
    settings = load_config("paper", overrides=[*SETTINGS, "method=mgca"])
    train(settings, cohort_folder, tmp_path / "alone", log=lambda text: None)
    codes, printed = finish(start(cohort_folder, tmp_path / "run", 2, "method=mgca"))
    assert codes == [0, 0], printed
    assert_close(tmp_path / "run", tmp_path / "alone", ("pretrain", "finetune"))


@pytest.mark.slow
def test_ranks_learn_several_targets_whose_values_patients_lack(tmp_path):
    """Risk sets hold the patients with an outcome, whoever has them."""
    cohort = cohort_of_gaps(tmp_path / "gaps")
    more = ["target=[grade,os,burden]", "survival.loss=cox"]
    train(load_config("paper", overrides=[*SETTINGS, *more]), cohort, tmp_path / "alone",
          log=lambda text: None)  # fmt: skip
    codes, printed = finish(start(cohort, tmp_path / "run", 2, *more))
    assert codes == [0, 0], printed
    assert_close(tmp_path / "run", tmp_path / "alone")


def wait_for_rows(run: Path, rows: int, processes: list[subprocess.Popen]) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and all(p.poll() is None for p in processes):
        file = run / "metrics.jsonl"
        if file.exists() and file.read_bytes().count(b"\n") >= rows:
            return
        time.sleep(0.01)
    raise AssertionError("the run ended, or never came so far")


LONG = ("finetune.epochs=40",)


@pytest.mark.slow
def test_a_lost_rank_ends_the_run_clearly_and_it_can_be_resumed(cohort_folder, tmp_path):
    out = tmp_path / "run"
    processes = start(cohort_folder, out, 2, *LONG)
    wait_for_rows(out, 5, processes)
    processes[1].kill()
    codes, printed = finish(processes)
    assert codes == [EXIT_BAD_INPUT, -signal.SIGKILL]
    assert "another rank of this run ended" in printed[0]
    assert "Traceback" not in printed[0]
    codes, printed = finish(start(cohort_folder, out, 2, *LONG))
    assert codes == [0, 0], printed
    assert "resuming after finetune" in printed[0]
    assert len(rows_of(out)) == 44


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_rank_stops_all_with_their_state_saved(cohort_folder, tmp_path, rank):
    out = tmp_path / "run"
    processes = start(cohort_folder, out, 2, *LONG)
    wait_for_rows(out, 5, processes)
    processes[rank].send_signal(signal.SIGUSR1)
    codes, printed = finish(processes)
    assert codes == [EXIT_STOPPED] * 2, printed
    assert "stopped by SIGUSR1 in finetune" in printed[0]
    _, state = load_checkpoint(out / "checkpoints" / "last.safetensors")
    assert state["stage"] == "finetune"


def test_one_rank_is_the_whole_batch():
    share = Share(ALONE, 4)
    values = torch.tensor([1.0, 2.0, 3.0, 6.0], requires_grad=True)
    assert share.mean(values).item() == 3
    assert share.ratio(values.sum(), torch.tensor(6)).item() == 2
    assert share.gather(values) is values
    total = share.of_all((values**2).sum())
    assert total.item() == 50
    total.backward()
    np.testing.assert_array_equal(values.grad, [2, 4, 6, 12])
    assert share.ratio(values.sum(), torch.tensor(0)).item() == 12
