"""The figure that every table has: a score of each row, with its interval and single runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gimp_fast.evaluation.intervals import Estimate
from gimp_fast.experiments.rows import Row
from gimp_fast.pages import style

ROW_HEIGHT = 0.27  # inches


@dataclass(frozen=True)
class Line:
    """What is drawn of a row; ``runs`` are the scores of single runs."""

    estimate: Estimate
    runs: Sequence[float] = ()


def figure_of_rows(
    lines: Mapping[Row, Line], label: str, *, largest: float = 1.0, mark: float | None = None
) -> Figure:
    """A line for each row under the titles of sections, and the paper's figure where it has one.

    Args:
        lines: rows in order.
        label: of the axis.
        largest: that the score can be.
        mark: a value at which a dashed line stands.
    """
    places: list[Row | str] = []
    for row in lines:
        if row.section not in places:
            places.append(row.section)
        places.append(row)
    figure = style.new_figure(style.WIDTH + 0.9, 1.1 + ROW_HEIGHT * len(places))
    axes = figure.add_subplot()
    lowest, highest = largest, 0.0
    axes.set_ylim(len(places) - 0.4, -0.6)
    texts = [place if isinstance(place, str) else style.plain(place.title) for place in places]
    axes.set_yticks(range(len(places)), texts)
    for number, (place, text) in enumerate(zip(places, axes.get_yticklabels(), strict=True)):
        if isinstance(place, str):
            text.set_fontweight("bold")
            continue
        low, high = _draw(axes, number, place, lines[place])
        lowest, highest = min(lowest, low), max(highest, high)
        if place.ours:
            text.set_color(style.ACCENT)
    if mark is not None:
        axes.axvline(mark, color=style.INK, lw=0.9, ls=(0, (2, 3)))
        lowest = min(lowest, mark)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    left = max(0.0, np.floor(20 * (lowest - 0.01)) / 20)
    right = min(largest, np.ceil(20 * (highest + 0.01)) / 20) + 0.015
    axes.set(xlim=(left, right), xlabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    several = any(len(line.runs) > 1 for line in lines.values())
    _dot_legend(figure, several, any(row.paper for row in lines))
    return figure


def _draw(axes: Axes, place: int, row: Row, line: Line) -> tuple[float, float]:
    """Draw one row; returns its smallest and its largest value."""
    found, runs, colour = line.estimate, line.runs, style.ACCENT if row.ours else style.INK
    if len(runs) > 1:
        axes.plot(
            runs, [place + 0.3] * len(runs), ls="", marker="o", ms=3, color=colour, alpha=0.4,
            mew=0,
        )  # fmt: skip
    axes.plot([found.low, found.high], [place, place], color=colour, lw=1.8)
    axes.plot(found.value, place, marker="o", ms=5.5, color=colour)
    values = [found.low, found.high, *runs]
    if row.paper:
        axes.plot(row.paper.value, place, marker="D", ms=4.5, mfc="none", mec=style.VAL, mew=1.1)
        values.append(row.paper.value)
    return min(values), max(values)


def _dot_legend(figure: Figure, several: bool, paper: bool) -> None:
    mark = partial(Line2D, [], [], color=style.INK, marker="o")
    handles = [mark(ms=5, lw=1.8, label="all folds, 95 % CI")]
    if several:
        handles.append(mark(ms=3, ls="", alpha=0.4, label="single runs"))
    if paper:
        ring = {"marker": "D", "ms": 4.5, "ls": "", "mfc": "none", "mec": style.VAL}
        handles.append(mark(**ring, label="paper, on its own patients"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, columnspacing=1.0)
