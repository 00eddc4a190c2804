"""Carries out a plan: reads the runs that are done, trains the others, and reports progress.

Each run is a process of its own, so one that crashes does not harm the others.
"""

from __future__ import annotations

import contextlib
import pickle
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from gimp_fast.data import Cohort
from gimp_fast.data.slides.prepared import verified_files
from gimp_fast.errors import GimpError, StoppedError, counted
from gimp_fast.evaluation.rates import Share
from gimp_fast.experiments.finished import Finished, read_run
from gimp_fast.experiments.machines import Machines
from gimp_fast.experiments.measures import concordance_of
from gimp_fast.experiments.plan import Plan, PlannedRun, find_folder
from gimp_fast.experiments.rows import RNA
from gimp_fast.experiments.worker import Task
from gimp_fast.runs import layout
from gimp_fast.runs.outcome_predictions import OutcomePredictions
from gimp_fast.runs.records import Run
from gimp_fast.tasks.child import run_in_child
from gimp_fast.tasks.engine import LostTaskError, as_completed
from gimp_fast.tasks.shared_files import appears
from gimp_fast.training.stops import StopRequests

WORK = "gimp_fast.experiments.worker:work"
_SAVED = "runs have saved their state: the same command resumes them"
# Called with a task that ended, its error (None if it succeeded), and the seconds that it took.
Report = Callable[[Task, str | None, float], None]


def execute(
    plan: Plan, cohort: Cohort, runs: Path, *, machines: Machines, keep: bool
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
    runs = runs.resolve() if machines.scheduler else runs  # workers have another current folder
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
        print(f"training {counted(len(tasks), 'run')}, {machines}; each writes into its folder")
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
                run_all(tasks, machines, report)
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


def run_all(tasks: Sequence[Task], machines: Machines, report: Report) -> None:
    """Carry out all tasks, each in a process of its own.

    Raises:
        GimpError: the engine cannot start.
        StoppedError, KeyboardInterrupt: on request; runs have saved their state.
    """
    with StopRequests() as stops, machines.engine() as engine:

        def check() -> None:
            if stops.requested:
                raise StoppedError(f"stopped by {stops.requested}; {_SAVED}")

        futures = {
            engine.submit(run_in_child, WORK, pickle.dumps((task,)), machines.gpus): task
            for task in tasks
        }
        for future in as_completed(futures, check):
            task = futures[future]
            try:
                ended = future.result()
            except LostTaskError as lost:
                report(task, str(lost), 0.0)
            else:
                report(task, error_of(task.folder, ended.code), ended.seconds)


def error_of(folder: Path, code: int) -> str | None:
    """How the process of a run ended, by its exit code and its files; None if the run is done."""
    error, log = folder / layout.ERROR, folder / layout.LOG
    if code == 0 and appears(folder / layout.RECORD):
        return None
    if error.is_file():
        return error.read_text(encoding="utf-8").strip()
    if code < 0:
        name = signal.Signals(-code).name
        memory = "; memory may have run out: try fewer runs at a time" if name == "SIGKILL" else ""
        return f"ended by {name}{memory}"
    if not log.is_file():
        return f"ended with exit code {code} before it began"
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), f"exit code {code}")
    return f"{last.strip()}; see {log}"
