"""Writes what a table leaves in its folder, from the runs that are there."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gimp_fast.data import Cohort
from gimp_fast.evaluation.comparison import BINS
from gimp_fast.experiments.collect import Finished
from gimp_fast.experiments.formats import csv_text, latex, markdown
from gimp_fast.experiments.page import Contents, write_page
from gimp_fast.experiments.paper import PAPER, Experiment, split_groups
from gimp_fast.experiments.plan import Plan
from gimp_fast.experiments.results import summarise
from gimp_fast.experiments.tables import Grid, detail_grid, main_grid
from gimp_fast.experiments.vectors import NEIGHBOURS, separation, separation_grid
from gimp_fast.files.atomic import write_text


@dataclass(frozen=True)
class Call:
    """What one call of the command was, for the record.

    Attributes:
        splits, seeds: asked for.
        preset, overrides: of all rows.
        command: as typed.
        environment: versions and hardware.
        resamples: of the bootstrap.
    """

    cohort: Cohort
    splits: tuple[str, ...]
    seeds: tuple[int, ...]
    preset: str
    overrides: tuple[str, ...]
    command: str
    environment: dict[str, Any]
    resamples: int


def write_outputs(
    experiment: Experiment,
    plan: Plan,
    finished: dict[str, Finished],
    errors: dict[str, str],
    call: Call,
    out: Path,
) -> Path:
    """Tables, figures, ``results.json`` and ``report.html``; returns the path of the latter."""
    out.mkdir(parents=True, exist_ok=True)
    rows, groups = summarise(
        experiment, plan, finished, errors, splits=call.splits, resamples=call.resamples
    )
    of_row = {
        row["key"]: [
            finished[run.digest]
            for run in plan.of_row.get((experiment.name, row["key"]), ())
            if run.digest in finished
        ]
        for row in rows
    }
    if experiment.name == "fig2":
        for row in rows:
            row["separation"] = separation(of_row[row["key"]], call.splits)
    results = _results(experiment, plan, errors, call, rows, of_row)
    names = [group.name for group in groups]
    grids = _grids(experiment, rows, names)
    notes = _notes(experiment, rows, call)
    write_text(
        out / "results.json", json.dumps(_plain(results), indent=1, ensure_ascii=False) + "\n"
    )
    write_text(out / "table.csv", csv_text(experiment, rows))
    write_text(out / "table.md", _markdown(experiment, grids, notes, call))
    write_text(out / "table.tex", _latex(experiment, grids, call))
    return write_page(Contents(experiment, results, grids, notes, groups, of_row), out)


def _grids(experiment: Experiment, rows: Sequence[dict], groups: Sequence[str]) -> dict[str, Grid]:
    grids = {}
    if experiment.name == "fig2":
        grids["How far apart the classes lie"] = separation_grid(rows, groups)
    grids["Accuracy after fine-tuning" if grids else "Accuracy and AUC"] = main_grid(
        experiment, rows, groups
    )
    grids["Further metrics"] = detail_grid(rows, groups)
    return grids


def _results(
    experiment: Experiment,
    plan: Plan,
    errors: dict[str, str],
    call: Call,
    rows: list[dict],
    of_row: dict[str, list[Finished]],
) -> dict[str, Any]:
    cohort = call.cohort
    wanted = {
        run.digest: run
        for (table, _), runs in plan.of_row.items()
        for run in runs
        if table == experiment.name
    }
    done = {one.run.digest: one for ones in of_row.values() for one in ones}
    runs = [_run_facts(one) for one in done.values()]
    return {
        "experiment": experiment.name,
        "title": experiment.title,
        "about": experiment.about,
        "reference": experiment.reference,
        "cohort": {
            "name": cohort.name,
            "synthetic": cohort.synthetic,
            "fingerprint": cohort.fingerprint,
            "patients": len(cohort),
            "classes": list(cohort.classes),
        },
        "groups": [
            {"name": name, "splits": names} for name, names in split_groups(call.splits).items()
        ],
        "seeds": list(call.seeds),
        "preset": call.preset,
        "overrides": list(call.overrides),
        "command": call.command,
        "environment": call.environment,
        "resamples": call.resamples,
        "seconds_of_training": round(sum(run["seconds"] for run in runs), 1),
        "rows": rows,
        "runs": runs,
        "num_runs": len(wanted),
        "failed": {str(run): errors[digest] for digest, run in wanted.items() if digest in errors},
        "paper": PAPER,
    }


def _run_facts(one: Finished) -> dict[str, Any]:
    shares = {
        part: {"k": sum(called == label for _, label, called, _ in rows), "n": len(rows)}
        for part, rows in one.rows.items()
    }
    return {
        "row": one.run.row, "split": one.run.split, "seed": one.run.seed,
        "folder": one.folder.name, "digest": one.run.digest, **shares,
        "best_epoch": one.record["best_epoch"], "seconds": one.record["seconds"],
    }  # fmt: skip


def _notes(experiment: Experiment, rows: Sequence[dict], call: Call) -> list[str]:
    reference = experiment.reference_row.title
    exact = any(
        numbers["versus"] and numbers["versus"]["mcnemar"]
        for row in rows
        for numbers in row["groups"].values()
    )
    notes = [
        f"Each row is trained anew on every split, with {len(call.seeds)} seed"
        f"{'s' if len(call.seeds) > 1 else ''} (logistic regression, which has no randomness, "
        "with one), under one configuration. The epoch is chosen on the validation patients; "
        "test patients are looked at once, by the chosen model.",
        "Accuracy is right calls over all calls on test patients, with both numbers. Mean ± SD is "
        "over single runs. AUC is the mean over runs, as scores of different models share no "
        "scale; of more than two classes, the mean of each against the rest.",
        f"Intervals are 95 % percentile intervals of {call.resamples} bootstrap resamples of "
        "patients: with a patient come all predictions of them, of every fold and seed. They say "
        "how much depends on the patients who were tested, not how much on training anew.",
        f"The difference to {reference} is paired: each patient is compared with themselves. "
        + (
            "Its p is McNemar's exact test where every patient is predicted once, and of the "
            "bootstrap elsewhere, "
            if exact
            else "Its p is of the bootstrap, "
        )
        + "corrected for the number of rows after Holm.",
        f"ECE is the expected calibration error in {BINS} bins of equally many predictions; the "
        "Brier score is half the squared distance between probabilities and truth. Both are "
        "better when smaller.",
    ]
    if experiment.name == "fig2":
        notes.insert(
            0,
            "The silhouette compares a patient's mean distance to their own class with that to "
            "the nearest other: 1 is far apart, 0 mixed, mean ± SD over runs. "
            f"The vote asks the {NEIGHBOURS} nearest training patients for a test patient's class.",
        )
    if any(row["paper"] for row in rows):
        notes.append(
            f"The paper's figures are of {PAPER}. They are another cohort's, from one split, and "
            "no target for this one; the paper divides some by 189 patients and some by 190."
        )
    return notes


def _markdown(
    experiment: Experiment, grids: dict[str, Grid], notes: Sequence[str], call: Call
) -> str:
    parts = [f"# {experiment.title}\n", f"{_called(call)}\n", f"{experiment.about}\n"]
    for title, grid in grids.items():
        parts += [f"## {title}\n", markdown(grid)]
    parts += ["## How the numbers are made\n", "\n\n".join(notes) + "\n"]
    return "\n".join(parts)


def _called(call: Call) -> str:
    cohort = call.cohort
    synthetic = " **Synthetic patients: the numbers say nothing about any disease.**"
    facts = f"{cohort.name}, {len(cohort)} patients, {', '.join(cohort.classes)}."
    return facts + (synthetic if cohort.synthetic else "")


def _latex(experiment: Experiment, grids: dict[str, Grid], call: Call) -> str:
    cohort = call.cohort
    text = []
    for number, (title, grid) in enumerate(grids.items(), start=1):
        kind = "Synthetic patients: " if cohort.synthetic else ""
        caption = f"{kind}{experiment.title}. {title}. {cohort.name}, {len(cohort)} patients."
        text.append(latex(grid, caption, f"tab:{experiment.name}-{number}"))
    return "\n".join(text)


def _plain(value: Any) -> Any:
    """Numbers that JSON has: numpy's as Python's, and None for what is not finite."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
