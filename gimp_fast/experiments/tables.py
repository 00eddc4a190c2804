"""A table as a grid of cells, which formats.py writes and the page shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gimp_fast.experiments.paper import Experiment

NONE = "–"
SPREAD = "Mean ± SD"  # over runs


@dataclass(frozen=True)
class Column:
    """Attributes:
    group: heading over it and its neighbours; empty for none.
    title: its own heading.
    """

    group: str
    title: str


@dataclass(frozen=True)
class GridRow:
    """Attributes:
    cells: a first line, and perhaps a second of what is less important.
    strong: whether it is to stand out.
    """

    section: str
    title: str
    cells: tuple[str, ...]
    strong: bool = False


@dataclass(frozen=True)
class Grid:
    """Attributes:
    columns: without that of the titles.
    """

    columns: tuple[Column, ...]
    rows: tuple[GridRow, ...]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Headings over columns, with how many each spans."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return spans


def main_grid(
    experiment: Experiment, rows: Sequence[dict[str, Any]], groups: Sequence[str]
) -> Grid:
    """Accuracy, AUC and the comparison of every row, and what the paper has."""
    reference = experiment.reference_row.title
    titles = ("Accuracy", SPREAD, "AUC", f"Difference to {reference}")
    columns = [Column(group_heading(name), title) for name in groups for title in titles]
    has_paper = any(row["paper"] for row in rows)
    if has_paper:
        columns.append(Column("", "Paper"))
    lines = []
    for row in rows:
        cells = [cell for name in groups for cell in _main_cells(row, name, experiment)]
        if has_paper:
            cells.append(_paper(row["paper"]))
        lines.append(GridRow(row["section"], row["title"], tuple(cells), row["ours"]))
    return _without_empty(Grid(tuple(columns), tuple(lines)), SPREAD)


def _without_empty(grid: Grid, title: str) -> Grid:
    """Leave out columns of this title where no row has anything in any of them."""
    places = [place for place, column in enumerate(grid.columns) if column.title == title]
    if any(row.cells[place] != NONE for row in grid.rows for place in places):
        return grid
    kept = [place for place in range(len(grid.columns)) if place not in places]
    rows = [replace(row, cells=tuple(row.cells[place] for place in kept)) for row in grid.rows]
    return Grid(tuple(grid.columns[place] for place in kept), tuple(rows))


def detail_grid(rows: Sequence[dict[str, Any]], groups: Sequence[str]) -> Grid:
    """The other metrics, and how many runs they come from."""
    titles = (
        "Balanced accuracy", "Macro F1", "ECE", "Brier score", "Validation accuracy", "Runs",
    )  # fmt: skip
    columns = tuple(Column(group_heading(name), title) for name in groups for title in titles)
    lines = [
        GridRow(
            row["section"], row["title"],
            tuple(cell for name in groups for cell in _detail_cells(row["groups"].get(name))),
            row["ours"],
        )
        for row in rows
    ]  # fmt: skip
    return Grid(columns, tuple(lines))


def group_heading(group: str) -> str:
    """``random`` -> ``random splits``; where they have no name but that, ``all splits``."""
    return "all splits" if group.lower() in ("split", "splits", "fold") else f"{group} splits"


def _paper(paper: dict[str, Any] | None) -> str:
    if paper is None:
        return NONE
    return f"{paper['printed']}\n({paper['counts']})" if paper["counts"] else paper["printed"]


def _main_cells(row: dict[str, Any], group: str, experiment: Experiment) -> list[str]:
    numbers = row["groups"].get(group)
    if row["skipped"] or numbers is None:
        return [f"left out\n{row['skipped']}" if row["skipped"] else NONE, NONE, NONE, NONE]
    test = numbers["test"]
    if test is None:
        return [f"failed\n0 of {numbers['of']} runs", NONE, NONE, NONE]
    accuracy = test["accuracy"]
    share = f"{accuracy['value']:.3f}\n{accuracy['k']}/{accuracy['n']} {_interval(accuracy)}"
    if numbers["runs"] < numbers["of"]:
        share += f"; {numbers['runs']} of {numbers['of']} runs"
    spread = test["accuracy_of_runs"]
    mean = NONE if spread["sd"] is None else f"{spread['mean']:.3f} ± {spread['sd']:.3f}"
    return [share, mean, _with_interval(test["auc"]), _versus(row, numbers, experiment)]


def _versus(row: dict[str, Any], numbers: dict[str, Any], experiment: Experiment) -> str:
    if row["key"] == experiment.reference:
        return "reference"
    versus = numbers["versus"]
    if versus is None:
        return NONE
    interval = f"({_signed(versus['low'])} to {_signed(versus['high'])})"
    return f"{_signed(versus['value'])}\n{interval}, {p_text(shown_p(versus))}"


def shown_p(versus: dict[str, Any]) -> float:
    """Holm-corrected p of McNemar's exact test where it applies, of the bootstrap elsewhere."""
    return (versus["mcnemar"] or versus)["p_holm"]


def p_text(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−").replace("+0.000", "0.000").replace("−0.000", "0.000")


def _with_interval(estimate: dict[str, Any] | None) -> str:
    if estimate is None:
        return NONE
    return f"{estimate['value']:.3f}\n{_interval(estimate)}"


def _interval(estimate: dict[str, Any]) -> str:
    return f"({estimate['low']:.3f} to {estimate['high']:.3f})"


def _detail_cells(numbers: dict[str, Any] | None) -> list[str]:
    if numbers is None or numbers["test"] is None:
        runs = NONE if numbers is None else f"{numbers['runs']} of {numbers['of']}"
        return [NONE] * 5 + [runs]
    test, val = numbers["test"], numbers["val"]["accuracy"]
    return [
        _with_interval(test["balanced_accuracy"]),
        _with_interval(test["f1_macro"]),
        f"{test['calibration_error']:.3f}",
        f"{test['brier']:.3f}",
        f"{val['value']:.3f}\n{val['k']}/{val['n']}",
        f"{numbers['runs']} of {numbers['of']}",
    ]
