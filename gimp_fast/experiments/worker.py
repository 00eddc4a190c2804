"""What the process of one run does: train, evaluate, record, tidy up.

The module is imported once, by the server that all such processes are forked from: starting
another run then costs milliseconds.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Each takes a second or more, which every run would wait for.
import torch._dynamo
import torch.utils.tensorboard  # noqa: F401
import yaml

from gimp_fast.cli import EXIT_BAD_INPUT, EXIT_STOPPED
from gimp_fast.data import Cohort, open_cohort
from gimp_fast.errors import GimpError, StoppedError
from gimp_fast.evaluation.rates import metrics_with_intervals
from gimp_fast.experiments.baselines import LogisticSettings, logistic_regression
from gimp_fast.experiments.plan import DONE, PREDICTIONS, Run
from gimp_fast.runs.environment import environment
from gimp_fast.runs.folder import RunFolder
from gimp_fast.training import TrainConfig, train
from gimp_fast.training.claim import saved_config

LOG, ERROR = "log.txt", "error.txt"
_NOT_KEPT = ("checkpoints", "tensorboard", "profile")


@dataclass(frozen=True)
class Task:
    """Attributes:
    run: what to do.
    data: cohort folder.
    folder: where to.
    keep_checkpoints: whether the folder keeps what a result does not need.
    gpu: which one to use, of several.
    """

    run: Run
    data: Path
    folder: Path
    keep_checkpoints: bool = False
    gpu: int | None = None


def work(task: Task) -> None:
    """Entry point of the process; ends it with 0, 1 (a crash), 2 (bad input) or 75 (stopped)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of Ctrl-C, the command tells all runs itself
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if task.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(task.gpu)
    task.folder.mkdir(parents=True, exist_ok=True)
    (task.folder / ERROR).unlink(missing_ok=True)
    _write_output_to(task.folder / LOG)
    try:
        carry_out(task)
    except StoppedError as error:
        print(error)
        sys.exit(EXIT_STOPPED)
    except GimpError as error:
        (task.folder / ERROR).write_text(f"{error}\n", encoding="utf-8")
        sys.exit(EXIT_BAD_INPUT)


def carry_out(task: Task) -> None:
    """Train, or go on, in this process."""
    began, run, cohort = time.perf_counter(), task.run, open_cohort(task.data)
    if isinstance(run.settings, LogisticSettings):
        metrics = _fit(run, run.settings, cohort, task.folder)
    else:
        metrics = _train(run.settings, cohort, task)
    if not task.keep_checkpoints:
        for name in _NOT_KEPT:
            shutil.rmtree(task.folder / name, ignore_errors=True)
    record = {
        "row": run.row,
        "split": run.split,
        "seed": run.seed,
        "digest": run.digest,
        "cohort": cohort.fingerprint,
        "classes": list(cohort.classes),
        "best_epoch": metrics["best_epoch"],
        "seconds": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(time.process_time(), 2),
    }
    RunFolder(task.folder).write_text(DONE, json.dumps(record, indent=2) + "\n")


def _train(config: TrainConfig, cohort: Cohort, task: Task) -> dict[str, Any]:
    folder = RunFolder(task.folder)
    if folder.config_file.exists():
        # It was begun with what gives the same result, perhaps on another number of threads.
        config = saved_config(task.folder)
    config = config.model_copy(update={"data": str(task.data)})
    return train(config, cohort, task.folder, resume=True)


def _fit(run: Run, settings: LogisticSettings, cohort: Cohort, out: Path) -> dict[str, Any]:
    """Logistic regression, with the files that training leaves."""
    fitted = logistic_regression(settings, cohort)
    folder, classes = RunFolder(out), cohort.classes
    counts = {part: int((fitted.parts == part).sum()) for part in ("train", "val", "test")}
    metrics: dict[str, Any] = {
        "cohort": {
            "name": cohort.name, "synthetic": cohort.synthetic, "split": settings.split,
            "classes": list(classes), "n": counts,
        },
        "method": "logistic_regression", "modalities": settings.modalities, "seed": run.seed,
        "best_epoch": None,
    }  # fmt: skip
    rows = []
    for part in ("val", "test"):
        chosen = np.flatnonzero(fitted.parts == part)
        probabilities, labels = fitted.probabilities[chosen], fitted.labels[chosen]
        metrics[part] = metrics_with_intervals(probabilities, labels, resamples=100, seed=0)
        for i, p in zip(chosen, probabilities, strict=True):
            called = classes[p.argmax()]
            row = [fitted.cases[i], part, classes[fitted.labels[i]], called]
            rows.append([*row, *(f"{value:.6g}" for value in p)])
    header = ["case_id", "split", "label", "prediction", *(f"prob_{name}" for name in classes)]
    folder.write_table(PREDICTIONS, header, rows)
    folder.write_text("metrics.json", json.dumps(metrics, indent=2) + "\n")
    folder.write_text(
        "config.yaml", yaml.safe_dump({"method": "logistic_regression", **asdict(settings)})
    )
    folder.write_text("environment.json", json.dumps(environment(), indent=2) + "\n")
    return metrics


def _write_output_to(file: Path) -> None:
    """Standard output and error of this process, of libraries too."""
    sys.stdout.flush()
    sys.stderr.flush()
    with file.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


def _end_with_parent() -> None:
    """If the command dies without a word, its runs save their state and end too."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
