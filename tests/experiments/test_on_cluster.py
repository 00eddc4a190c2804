"""A table on a cluster: the same results as one process, though a worker dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from builders.clusters import PACKAGE, kill, wait_until

from gimp_fast.experiments import main

EPOCHS = 8
ROWS = ["mean_pool", "snn"]
RESULTS = ("predictions.csv", "metrics.json", "embeddings.npz")

pytestmark = pytest.mark.slow


def arguments_of(cohort_folder: Path, out: Path, tiny: list[str], epochs: int) -> list[str]:
    jobs = tiny.index("--jobs")  # which are of one machine
    shared = [*tiny[:jobs], *tiny[jobs + 2 :], "--set", f"finetune.epochs={epochs}"]
    return ["table1", "--data", str(cohort_folder), "--out", str(out), *shared]


def test_a_worker_that_dies_changes_no_result(cohort_folder, tiny, tmp_path, cluster, capsys):
    victim = cluster.add_worker("--no-nanny")
    cluster.add_worker()  # with a nanny, whose workers are daemons
    one, many = tmp_path / "one", tmp_path / "many"
    asked = ["--only", *ROWS, "--seeds", "3"]
    states: list[int] = []

    def kill_in_the_middle() -> None:
        wait_until(lambda: is_at_work(many, "--no-nanny"), "no run began on the victim")
        kill(victim)
        states.append(len(list(many.glob("runs/*/run.json"))))

    killer = threading.Thread(target=kill_in_the_middle)
    killer.start()
    arguments = arguments_of(cohort_folder, many, tiny, EPOCHS)
    assert main([*arguments, *asked, "--scheduler", str(cluster.file)]) == 0
    killer.join()
    said = capsys.readouterr().out
    assert "cluster of " in said
    assert "training 12 runs, on the cluster" in said
    assert states[0] < 12

    arguments = arguments_of(cohort_folder, one, tiny, EPOCHS)
    assert main([*arguments, *asked, "--jobs", "1", "--set", "threads=1"]) == 0
    names = sorted(path.parent.name for path in one.glob("runs/*/run.json"))
    assert names == sorted(path.parent.name for path in many.glob("runs/*/run.json"))
    assert len(names) == 12
    for name in names:
        for file in RESULTS:
            paths = (out / "runs" / name / file for out in (one, many))
            same = {path.read_bytes() if path.is_file() else b"" for path in paths}
            assert len(same) == 1, f"{name}: {file}"
        lines = (many / "runs" / name / "metrics.jsonl").open()
        assert [json.loads(line)["epoch"] for line in lines] == list(range(1, EPOCHS + 1))
    logs = [(many / "runs" / name / "log.txt").read_text() for name in names]
    # Only the run of the victim was begun twice, and it went on from what it had saved.
    assert sum(log.count("patients, keeps epoch") for log in logs) == 12
    assert [log.count("resuming after finetune epoch") for log in logs if "stopped by" in log] == [
        1
    ]
    tables = [json.loads((out / "table1" / "results.json").read_text()) for out in (one, many)]
    assert tables[0]["rows"] == tables[1]["rows"]


def is_at_work(out: Path, worker: str) -> bool:
    """Whether a run has begun, on a worker that was started with this option, and is not done."""
    for metrics in out.glob("runs/*/metrics.jsonl"):
        command = json.loads((metrics.parent / "environment.json").read_text())["command"]
        if worker in command and len(metrics.read_text().splitlines()) in (1, 2):
            return not (metrics.parent / "run.json").is_file()
    return False


def test_a_command_that_is_stopped_stops_the_runs_of_the_workers(
    cohort_folder, tiny, tmp_path, cluster
):
    cluster.add_worker()
    out = tmp_path / "out"
    arguments = arguments_of(cohort_folder, out, tiny, 60)
    arguments += ["--only", "mean_pool", "--splits", "fold_0"]
    command = subprocess.Popen(
        [sys.executable, "-m", "gimp_fast.experiments", *arguments, "--scheduler", cluster.file],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(PACKAGE)}, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    wait_until(lambda: list(out.glob("runs/*/metrics.jsonl")), "no run began")
    command.send_signal(signal.SIGTERM)
    _, error = command.communicate(timeout=120)
    assert (command.returncode, "stopped by SIGTERM" in error) == (75, True)
    log = next(out.glob("runs/*/log.txt"))
    wait_until(lambda: "stopped by SIGTERM in finetune" in log.read_text(), "the run went on")
    # The same command goes on, here or there.
    assert main([*arguments, "--jobs", "1", "--set", "threads=1"]) == 0
    assert "resuming after finetune epoch" in log.read_text()
