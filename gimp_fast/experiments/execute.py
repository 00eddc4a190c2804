"""Carries out a plan: reads the runs that are done, trains the others, and reports progress.

Each run is a process of its own, so one that crashes does not harm the others.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from gimp_fast.data import Cohort
from gimp_fast.data.slides.prepared import verified_files
from gimp_fast.errors import GimpError, StoppedError
from gimp_fast.evaluation.rates import Share
from gimp_fast.experiments.finished import Finished, read_run
from gimp_fast.experiments.measures import concordance_of
from gimp_fast.experiments.plan import Plan, PlannedRun, find_folder
from gimp_fast.experiments.rows import RNA
from gimp_fast.experiments.worker import Task, work
from gimp_fast.files.parallel import available_cores
from gimp_fast.runs import layout
from gimp_fast.runs.outcome_predictions import OutcomePredictions
from gimp_fast.runs.records import Run
from gimp_fast.training.stops import StopRequests

GRACE_SECONDS = 60  # for a run that was asked to stop, to finish its step and save its state
POLL_SECONDS = 0.1
_SAVED = "runs have saved their state: the same command resumes them"

_OF_SERVER = {
    # Not to look for the package in the current folder, as it would by default: that may hold the
    # sources, without what is built of them.
    "PYTHONSAFEPATH": "1",
    # NumPy's products are small, and its threads would wait for them on the cores of other runs.
    "OPENBLAS_NUM_THREADS": "1",
}

# Called with a task that ended, its error (None if it succeeded), and the seconds that it took.
Report = Callable[[Task, str | None, float], None]


def default_jobs(asked: int | None, on_cpu: bool) -> tuple[int, int]:
    """(runs at a time, GPUs that they share)."""
    gpus = 0 if on_cpu else torch.cuda.device_count()
    return asked or gpus or available_cores(), gpus


def execute(
    plan: Plan, cohort: Cohort, runs: Path, *, jobs: int, gpus: int, keep: bool
) -> tuple[dict[str, Finished], dict[str, str]]:
    """Train what is missing.

    Returns:
        digest -> the finished run, and digest -> the error of a run that failed.

    Raises:
        StoppedError, KeyboardInterrupt: on request; runs have saved their state.
    """
    finished: dict[str, Finished] = {}
    errors: dict[str, str] = {}
    tasks: list[Task] = []
    for run in plan.runs:
        folder = find_folder(runs, run)
        if Run(folder).is_recorded:
            finished[run.digest] = read_run(run, folder)
        else:
            tasks.append(Task(run, cohort.path.resolve(), folder, keep))
    verified = verified_slides(cohort, [task.run for task in tasks])
    tasks = [replace(task, verified=verified) for task in tasks]
    if finished:
        print(f"{len(finished)} of {len(plan.runs)} runs are done already")
    if tasks:
        at_once = f"{jobs} at a time" if jobs > 1 else "one after the other"
        print(f"training {len(tasks)} runs, {at_once}; their output is in their folders")
    # A bar for a terminal; in a log file, each line starts with the progress instead.
    bar = tqdm(total=len(tasks), unit="run", disable=None, smoothing=0.1)
    began, ended = time.perf_counter(), 0

    def report(task: Task, error: str | None, seconds: float) -> None:
        nonlocal ended
        ended += 1
        bar.update()
        left = (time.perf_counter() - began) / ended * (len(tasks) - ended)
        place = f"[{ended}/{len(tasks)}, {left / 60:.0f} min left] " if bar.disable else ""
        run = task.run
        if error is None:
            try:
                finished[run.digest] = read_run(run, task.folder)
                line = f"{run}: {_in_short(finished[run.digest])}  [{seconds:.0f} s]"
            except GimpError as damaged:
                error = str(damaged)
        if error is not None:
            errors[run.digest] = error
            line = f"{run}: FAILED after {seconds:.0f} s: {error}"
        bar.write(place + line)

    with bar:
        if tasks:
            try:
                run_all(tasks, jobs, report, gpus)
            except KeyboardInterrupt as interrupt:
                raise KeyboardInterrupt(f"interrupted; {_SAVED}") from interrupt
    return finished, errors


def _in_short(one: Finished) -> str:
    """What a run reaches on its test patients, in a few words."""
    test = one.predictions.of("test")
    if isinstance(test, OutcomePredictions):
        return f"C-index {concordance_of(test):.3f} ({len(test)} patients)"
    share = Share.of(test.hits)
    return f"accuracy {share.value:.3f} ({share.k}/{share.n})"


def verified_slides(cohort: Cohort, runs: Sequence[PlannedRun]) -> dict[Path, str]:
    """Slides of these runs whose files have another time than in the cohort, but the same content.

    Each run would read them all to find that out.
    """
    splits = {run.split for run in runs if run.settings.modalities != RNA}
    for case in {case for name in splits for part in cohort.split(name).values() for case in part}:
        if cohort.has_slides(case):
            with contextlib.suppress(GimpError):  # the runs that need this slide will report it
                cohort.bag(case).check()
    return verified_files()


def run_all(tasks: Sequence[Task], jobs: int, report: Report, gpus: int = 0) -> None:
    """Carry out all tasks, ``jobs`` at a time. Another way to run them would replace this function.

    Raises:
        StoppedError, KeyboardInterrupt: on request; runs have saved their state.
    """
    context = _start_server()
    waiting, slots = list(reversed(tasks)), list(reversed(range(jobs)))
    active: dict[Any, _Active] = {}
    with StopRequests() as stops:
        try:
            while waiting or active:
                while waiting and slots and not stops.requested:
                    started = _start(context, waiting.pop(), slots.pop(), gpus)
                    active[started.process.sentinel] = started
                for sentinel in wait(list(active), timeout=POLL_SECONDS):
                    ended = active.pop(sentinel)
                    slots.append(ended.slot)
                    report(ended.task, ended.error(), time.perf_counter() - ended.began)
                if stops.requested:
                    raise StoppedError(f"stopped by {stops.requested}; {_SAVED}")
        finally:
            _stop(list(active.values()))


def _start_server() -> Any:
    """Start the process that runs are forked from, with what they import already loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gimp_fast.experiments.worker"])
    before = {name: os.environ.get(name) for name in _OF_SERVER}
    os.environ.update(_OF_SERVER)
    try:
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
    return context


@dataclass
class _Active:
    task: Task
    process: Any
    slot: int
    began: float

    def error(self) -> str | None:
        """How the process ended, which it has; None if the run is done."""
        self.process.join()
        code, folder = self.process.exitcode, self.task.folder
        if code == 0 and Run(folder).is_recorded:
            return None
        error, log = folder / layout.ERROR, folder / layout.LOG
        if error.is_file():
            return error.read_text(encoding="utf-8").strip()
        if code < 0:
            name = signal.Signals(-code).name
            memory = "; memory may have run out: try fewer --jobs" if name == "SIGKILL" else ""
            return f"ended by {name}{memory}"
        if not log.is_file():
            return f"ended with exit code {code} before it began"
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), f"exit code {code}")
        return f"{last.strip()}; see {log}"


def _start(context: Any, task: Task, slot: int, gpus: int) -> _Active:
    if gpus > 1:
        task = replace(task, gpu=slot % gpus)
    process = context.Process(target=work, args=(task,), name=task.run.name)
    process.start()
    return _Active(task, process, slot, time.perf_counter())


def _stop(active: Sequence[_Active]) -> None:
    """Ask all runs to stop, wait until they have saved their state, and end those that do not."""
    for one in active:
        one.process.terminate()
    deadline = time.perf_counter() + GRACE_SECONDS
    for one in active:
        one.process.join(max(0.0, deadline - time.perf_counter()))
        if one.process.is_alive():
            one.process.kill()
            one.process.join()
