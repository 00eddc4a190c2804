"""Carries out a plan: what is there is read, the rest is trained; says how it goes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from gimp_fast.data import Cohort
from gimp_fast.errors import GimpError
from gimp_fast.experiments.collect import Finished, read_run
from gimp_fast.experiments.paper import Experiment
from gimp_fast.experiments.plan import Plan, find_folder, is_done
from gimp_fast.experiments.runner import Outcome, run_all
from gimp_fast.experiments.worker import Task
from gimp_fast.files.parallel import available_cores


def default_jobs(asked: int | None, on_cpu: bool) -> tuple[int, int]:
    """(runs at a time, GPUs that they share)."""
    import torch

    gpus = 0 if on_cpu else torch.cuda.device_count()
    return asked or gpus or available_cores(), gpus


def execute(
    plan: Plan, cohort: Cohort, runs: Path, *, jobs: int, gpus: int, keep: bool
) -> tuple[dict[str, Finished], dict[str, str]]:
    """Train what is missing.

    Returns:
        Digest -> the finished run, and digest -> what a run that failed ended with.

    Raises:
        StoppedError, KeyboardInterrupt: on request; runs have saved their state.
    """
    folders = {run.digest: find_folder(runs, run) for run in plan.runs}
    finished, errors = {}, {}
    tasks = []
    for run in plan.runs:
        folder = folders[run.digest]
        if is_done(folder):
            finished[run.digest] = read_run(run, folder, cohort.classes)
        else:
            tasks.append(Task(run, cohort.path.resolve(), folder, keep))
    if finished:
        print(f"{len(finished)} of {len(plan.runs)} runs are there already")
    # A bar for a terminal; in a log file, what it would say stands before each line.
    bar = tqdm(total=len(tasks), unit="run", disable=None, smoothing=0.1)
    began, ended = time.perf_counter(), 0

    def tell(outcome: Outcome) -> None:
        nonlocal ended
        ended += 1
        bar.update()
        left = (time.perf_counter() - began) / ended * (len(tasks) - ended)
        place = f"[{ended}/{len(tasks)}, {left / 60:.0f} min left] " if bar.disable else ""
        bar.write(place + _line(outcome, cohort, finished, errors))

    with bar:
        if tasks:
            run_all(tasks, jobs, tell, gpus)
    return finished, errors


def _line(
    outcome: Outcome,
    cohort: Cohort,
    finished: dict[str, Finished],
    errors: dict[str, str],
) -> str:
    """Record how a run ended, and say it."""
    run, error = outcome.run, outcome.error
    if error is None:
        try:
            finished[run.digest] = read_run(run, outcome.folder, cohort.classes)
        except GimpError as damaged:
            error = str(damaged)
    if error is not None:
        errors[run.digest] = error
        return f"{run}: FAILED after {outcome.seconds:.0f} s: {error}"
    test = finished[run.digest].rows["test"]
    hits = sum(called == label for _, label, called, _ in test)
    return f"{run}: accuracy {hits / len(test):.3f} ({hits}/{len(test)})  [{outcome.seconds:.0f} s]"


def show_plan(
    tables: Sequence[Experiment],
    plan: Plan,
    runs: Path,
    splits: Sequence[str],
    seeds: Iterable[int],
) -> list[str]:
    """What would be done."""
    lines = []
    for table in tables:
        lines.append(f"{table.title}")
        width = max(len(row.key) for row in table.rows)
        for row in table.rows:
            place = (table.name, row.key)
            if place in plan.skipped:
                lines.append(f"  {row.key:<{width}}  left out: {plan.skipped[place]}")
            elif place in plan.of_row:
                of_row = plan.of_row[place]
                there = sum(is_done(find_folder(runs, run)) for run in of_row)
                settings = " ".join([f"method={row.method}", row.modalities, *row.overrides])
                lines.append(f"  {row.key:<{width}}  {len(of_row)} runs, {there} there: {settings}")
    missing = sum(not is_done(find_folder(runs, run)) for run in plan.runs)
    lines.append(
        f"{len(splits)} splits ({', '.join(splits)}), {len(list(seeds))} seeds: "
        f"{len(plan.runs)} runs, {missing} to train"
    )
    return lines
