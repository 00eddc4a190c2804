"""What the process of one run does: train, evaluate, record, tidy up."""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

# Each takes a second or more, which every run would wait for.
import torch._dynamo
import torch.utils.tensorboard  # noqa: F401

from gimp_fast.cli import EXIT_BAD_INPUT, EXIT_STOPPED
from gimp_fast.data import Cohort, open_cohort
from gimp_fast.data.slides.prepared import trust
from gimp_fast.errors import GimpError, StoppedError
from gimp_fast.experiments.plan import PlannedRun
from gimp_fast.files.atomic import open_to_append, write_errors, write_text
from gimp_fast.files.locks import claim_in_turn
from gimp_fast.runs import layout
from gimp_fast.runs.folder import RunFolder
from gimp_fast.runs.records import Run, RunRecord
from gimp_fast.training import TrainConfig, train
from gimp_fast.training.claim import saved_config

_NOT_KEPT = (layout.CHECKPOINTS, layout.TENSORBOARD, layout.PROFILE)


@dataclass(frozen=True)
class Task:
    """A run to train on a cohort folder.

    ``keep_checkpoints`` leaves weights, events and profiles in the folder of the run. ``verified``
    are slides that need not be compared with the cohort again, with the states of their files.
    """

    run: PlannedRun
    data: Path
    folder: Path
    keep_checkpoints: bool = False
    verified: dict[Path, str] = field(default_factory=dict)


def work(task: Task) -> None:
    """What the process does; ends it with 0, 1 (a crash), 2 (bad input) or 75 (stopped)."""
    try:
        with write_errors(task.folder):
            task.folder.mkdir(parents=True, exist_ok=True)
            (task.folder / layout.ERROR).unlink(missing_ok=True)
            _write_output_to(task.folder / layout.LOG)
    except GimpError as error:  # there is no file for it: say it where the command does
        print(error, file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    try:
        # The process of a worker that died may still save its state.
        with claim_in_turn(task.folder):
            if not Run(task.folder).is_recorded:
                carry_out(task)
    except StoppedError as error:
        print(error)
        sys.exit(EXIT_STOPPED)
    except GimpError as error:
        write_text(task.folder / layout.ERROR, f"{error}\n")
        sys.exit(EXIT_BAD_INPUT)


def carry_out(task: Task) -> None:
    """Train, or resume, in this process."""
    began, run, cohort = time.perf_counter(), task.run, open_cohort(task.data)
    trust(task.verified)
    folder = RunFolder(task.folder)
    best_epoch = None
    if isinstance(run.settings, TrainConfig):
        best_epoch = _train(run.settings, cohort, task)
    else:
        run.settings.carry_out(cohort, run.seed, folder)
    if not task.keep_checkpoints:
        for name in _NOT_KEPT:
            shutil.rmtree(task.folder / name, ignore_errors=True)
    folder.write_record(
        RunRecord(
            row=run.row,
            split=run.split,
            seed=run.seed,
            digest=run.digest,
            cohort=cohort.fingerprint,
            classes=cohort.classes,
            best_epoch=best_epoch,
            seconds=round(time.perf_counter() - began, 2),
            cpu_seconds=round(time.process_time(), 2),
        )
    )


def _train(config: TrainConfig, cohort: Cohort, task: Task) -> int:
    """Train, or resume; returns the epoch of the chosen model."""
    if RunFolder(task.folder).config_file.exists():
        # It began with settings of the same result, perhaps with another number of threads.
        config = saved_config(task.folder)
    config = config.model_copy(update={"data": str(task.data)})
    return train(config, cohort, task.folder, resume=True)["best_epoch"]


def _write_output_to(file: Path) -> None:
    """Redirect standard output and error of this process, also of libraries, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    with open_to_append(file) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
