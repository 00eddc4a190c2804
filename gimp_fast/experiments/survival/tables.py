"""The tables of survival as grids of text, and ``table.csv``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

import pandas as pd

from gimp_fast.experiments.grid import (
    NONE,
    Grid,
    build_grid,
    difference_text,
    estimate_text,
    interval_text,
    spread_text,
)
from gimp_fast.experiments.rows import Row, heading_of
from gimp_fast.experiments.survival.results import PARTS_OF_INPUT, Group, Overall, Results
from gimp_fast.files.safe_text import guarded

_SHOWN = {
    "both": "All", "rna": "RNA alone", "slide": "Slides alone",
    "without_covariates": "Without covariates", "covariates": "Covariates alone",
}  # fmt: skip
COMPARED = "Difference to GiMP of the same inputs"


def grids(results: Results) -> dict[str, Grid]:
    """Heading -> table, in the order of the page."""
    tables = {}
    if results.overall:
        tables["C-index, mean of cohorts"] = overall_grid(results)
    tables["C-index"] = main_grid(results)
    tables[f"{COMPARED}, in the C-index"] = difference_grid(results)
    tables["Further scores"] = detail_grid(results)
    scores = [score for group in results.groups for score in group.scores.values()]
    if any(score.by_modality for score in scores):
        tables["C-index of what a model is shown alone"] = modality_grid(results)
    if any(score.weight for score in scores):
        tables["Weight of the model beside its fallback"] = weight_grid(results)
    return tables


def overall_grid(results: Results) -> Grid:
    """Means over cohorts, and their differences."""

    def cells(row: Row, group: Overall) -> list[str]:
        if row.key not in group.c_index:
            return [NONE, NONE]
        return [estimate_text(group.c_index[row.key]), difference_text(group.versus.get(row.key))]

    return build_grid(results.rows, results.overall, ("C-index", COMPARED), cells)


def main_grid(results: Results) -> Grid:
    """Mean ± SD over runs, and the interval, in every cohort."""

    def cell(row: Row, group: Group) -> str:
        scores = group.scores.get(row.key)
        if scores is None:
            return f"left out\n{results.skipped[row.key]}" if row.key in results.skipped else NONE
        if scores.test is None:
            return f"failed\n0 of {scores.of} runs"
        if scores.test.c_index is None:
            return NONE
        text = f"{spread_text(scores.test.c_of_runs)}\n{interval_text(scores.test.c_index)}"
        if scores.runs < scores.of:
            text += f"; {scores.runs} of {scores.of} runs"
        return text

    return _column_of_each_group(results, cell)


def difference_grid(results: Results) -> Grid:
    """Every row against the one that it is compared with."""

    def cell(row: Row, group: Group) -> str:
        scores = group.scores.get(row.key)
        return difference_text(scores.versus) if scores else NONE

    return _column_of_each_group(results, cell)


def _column_of_each_group(results: Results, cell: Callable[[Row, Group], str]) -> Grid:
    """A column for each cohort and name of splits, the latter over the former."""
    columns = tuple((heading_of(group.name), group.cohort.name) for group in results.groups)
    lines = ((row, tuple(cell(row, group) for group in results.groups)) for row in results.rows)
    return Grid(columns, tuple(lines))


def detail_grid(results: Results) -> Grid:
    """Other scores, and how many runs they come from."""

    def cells(row: Row, group: Group) -> list[str]:
        scores = group.scores.get(row.key)
        if scores is None or scores.test is None:
            return []
        test = scores.test
        texts = map(estimate_text, (test.uno_c, test.mean_auc, test.integrated_brier))
        return [*texts, spread_text(scores.val), f"{scores.runs} of {scores.of}"]

    titles = ("Uno's C", "Mean AUC", "Integrated Brier score", "Validation C-index", "Runs")
    return build_grid(results.rows, results.groups, titles, cells)


def modality_grid(results: Results) -> Grid:
    """The C-index of the parts of the input, mean over runs, and over cohorts."""

    every = [score.by_modality for group in results.groups for score in group.scores.values()]
    shown = [name for name in PARTS_OF_INPUT if any(name in parts for parts in every)]
    places = [
        (overall.heading, [group for group in results.groups if group.name == overall.name])
        for overall in results.overall
    ]
    places += [(group.heading, [group]) for group in results.groups]

    def cell(row: Row, groups: Sequence[Group], name: str) -> str:
        """The mean, if the row has this part in all of these groups."""
        scores = [group.scores[row.key] for group in groups if row.key in group.scores]
        means = [score.by_modality[name].mean for score in scores if name in score.by_modality]
        return f"{fmean(means):.3f}" if means and len(means) == len(scores) else NONE

    columns = tuple((heading, _SHOWN[name]) for heading, _ in places for name in shown)
    lines = []
    for row in results.rows:
        cells = tuple(cell(row, groups, name) for _, groups in places for name in shown)
        if set(cells) != {NONE}:
            lines.append((row, cells))
    return Grid(columns, tuple(lines))


def weight_grid(results: Results) -> Grid:
    """The weight that validation patients gave to the model, mean over runs."""

    def cells(row: Row, group: Group) -> list[str]:
        scores = group.scores.get(row.key)
        return [] if scores is None or scores.weight is None else [spread_text(scores.weight)]

    grid = build_grid(results.rows, results.groups, ("Weight",), cells)
    return replace(grid, rows=tuple(row for row in grid.rows if set(row[1]) != {NONE}))


def csv_text(results: Results) -> str:
    """A line for each row and group of splits, with every number at full precision."""
    lines = []
    for row in results.rows:
        for group in results.groups:
            line = {
                "experiment": results.experiment.name, "section": row.section, "row": row.key,
                "title": row.title, "method": row.method, "modalities": row.modalities,
                "covariates": row.covariates, "overrides": " ".join(row.overrides),
                "cohort": group.cohort.name, "splits": group.name,
                "skipped": results.skipped.get(row.key),
            }  # fmt: skip
            lines.append(line | _numbers(row, group))
    frame = pd.DataFrame(lines, dtype=object)
    texts = frame.map(lambda cell: guarded(cell) if isinstance(cell, str) else cell)
    return texts.to_csv(index=False)


def _numbers(row: Row, group: Group) -> dict[str, float | int | None]:
    scores = group.scores.get(row.key)
    test, versus = (scores.test, scores.versus) if scores else (None, None)
    parts = scores.by_modality if scores else {}
    line = {
        "runs": scores and scores.runs,
        "runs_wanted": scores and scores.of,
        "patients": test and test.patients,
        "events": test and test.events,
        "predictions": test and test.predictions,
    }
    for name in ("c_index", "uno_c", "mean_auc", "integrated_brier"):
        value = test and getattr(test, name)
        line |= {name: value and value.value, f"{name}_low": value and value.low,
                 f"{name}_high": value and value.high}  # fmt: skip
    line |= {
        "c_index_mean": test and test.c_of_runs.mean,
        "c_index_sd": test and test.c_of_runs.sd,
        "val_c_index": scores and scores.val and scores.val.mean,
        "compared_with": row.versus,
        "difference": versus and versus.value,
        "difference_low": versus and versus.low,
        "difference_high": versus and versus.high,
        "p": versus and versus.p,
        "p_holm": versus and versus.p_holm,
        **{
            f"c_index_shown_{name}": parts[name].mean if name in parts else None
            for name in PARTS_OF_INPUT
        },
        "model_weight": scores and scores.weight and scores.weight.mean,
    }
    return line
