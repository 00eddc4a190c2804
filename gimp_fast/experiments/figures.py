"""The drawings of the tables: numbers in, a matplotlib figure out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from sklearn.manifold import TSNE

from gimp_fast.evaluation.calibration import BINS, reliability
from gimp_fast.evaluation.rates import Predictions, mean_roc
from gimp_fast.experiments.paper import Row
from gimp_fast.experiments.results import Group
from gimp_fast.experiments.vectors import Vectors
from gimp_fast.pages import style

ROW_HEIGHT = 0.27  # inches
GRID = np.linspace(0, 1, 201)
TSNE_SEED = 0
FEWEST_IN_A_BIN = 25  # of a curve; fewer would draw chance


@dataclass(frozen=True)
class Curve:
    """A row in a figure of curves."""

    title: str
    predictions: Predictions
    colour: str


@dataclass(frozen=True)
class Plane:
    """A panel of Figure 2."""

    title: str
    vectors: Vectors

    def points(self) -> np.ndarray:
        """(n, 2): the patients in the plane that t-SNE finds."""
        perplexity = min(30.0, (len(self.vectors.vectors) - 1) / 3)
        return TSNE(
            perplexity=perplexity, init="pca", learning_rate="auto", random_state=TSNE_SEED
        ).fit_transform(self.vectors.vectors)


def accuracy_by_row(rows: Sequence[Row], group: Group) -> Figure:
    """Accuracy and its interval of every row, with single runs and the paper's figure.

    Args:
        rows: with predictions in this group of splits.
        group: of splits.
    """
    lines: list[Row | str] = []
    for row in rows:
        if row.section not in lines:
            lines.append(row.section)
        lines.append(row)
    figure = style.new_figure(style.WIDTH + 0.9, 1.1 + ROW_HEIGHT * len(lines))
    axes = figure.add_subplot()
    lowest = 1.0
    for place, row in enumerate(lines):
        if isinstance(row, Row):
            lowest = min(lowest, _accuracy_line(axes, place, row, group))
    axes.set_ylim(len(lines) - 0.4, -0.6)
    labels = [line if isinstance(line, str) else style.plain(line.title) for line in lines]
    axes.set_yticks(range(len(lines)), labels)
    for label, line in zip(axes.get_yticklabels(), lines, strict=True):
        if isinstance(line, str):
            label.set_fontweight("bold")
        elif line.ours:
            label.set_color(style.ACCENT)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_xlim(max(0.0, np.floor(20 * (lowest - 0.01)) / 20), 1.015)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("Accuracy on test patients")
    several = any(len(group.scores[row.key].test.accuracy_of_runs.values) > 1 for row in rows)
    _dot_legend(figure, several, any(row.paper for row in rows))
    return figure


def _accuracy_line(axes: Axes, place: int, row: Row, group: Group) -> float:
    """Draw one row; returns its smallest value."""
    test, colour = group.scores[row.key].test, style.ACCENT if row.ours else style.INK
    runs, accuracy = test.accuracy_of_runs.values, test.accuracy
    if len(runs) > 1:
        axes.plot(
            runs, [place + 0.3] * len(runs), ls="", marker="o", ms=3, color=colour, alpha=0.4,
            mew=0,
        )  # fmt: skip
    axes.plot([accuracy.low, accuracy.high], [place, place], color=colour, lw=1.8)
    axes.plot(accuracy.value, place, marker="o", ms=5.5, color=colour)
    values = [accuracy.low, *runs]
    if row.paper:
        axes.plot(row.paper.value, place, marker="D", ms=4.5, mfc="none", mec=style.VAL, mew=1.1)
        values.append(row.paper.value)
    return min(values)


def _dot_legend(figure: Figure, several: bool, paper: bool) -> None:
    line = {"color": style.INK, "marker": "o", "ms": 5, "lw": 1.8}
    handles = [Line2D([], [], label="all folds, 95 % CI", **line)]
    if several:
        dot = {"color": style.INK, "marker": "o", "ms": 3, "ls": "", "alpha": 0.4}
        handles.append(Line2D([], [], label="single runs", **dot))
    if paper:
        ring = {"ls": "", "marker": "D", "ms": 4.5, "mfc": "none", "mec": style.VAL}
        handles.append(Line2D([], [], label="paper, on its own patients", **ring))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, columnspacing=1.0)


def reliability_curves(curves: Sequence[Curve]) -> Figure:
    """Share of right predictions against the probability that the model gave them."""
    figure, axes = _square(len(curves))
    lowest = 1.0
    for curve in curves:
        predictions = curve.predictions
        most = int(np.clip(len(predictions) // FEWEST_IN_A_BIN, 2, BINS))
        bins = reliability(predictions.confidence, predictions.hits, most)
        axes.plot(
            bins.confidence, bins.share, marker="o", ms=3.5, color=curve.colour,
            label=style.plain(curve.title), clip_on=False,
        )  # fmt: skip
        lowest = min(lowest, bins.confidence.min(), bins.share.min())
    low = np.floor(10 * lowest) / 10
    axes.set(xlim=(low, 1), ylim=(low, 1), aspect="equal")
    axes.set_xlabel("Probability of the predicted class")
    axes.set_ylabel("Share of predictions that are right")
    figure.legend(loc="outside lower center", ncols=1)
    return figure


def roc(curves: Sequence[Curve]) -> Figure:
    """ROC curves, averaged over classes and runs at each false positive rate."""
    figure, axes = _square(len(curves))
    for curve in curves:
        axes.plot(
            np.r_[0, GRID], np.r_[0, mean_roc(curve.predictions, GRID)], color=curve.colour,
            label=style.plain(curve.title), clip_on=False,
        )  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xlabel("False positive rate (1 − specificity)")
    axes.set_ylabel("True positive rate (sensitivity)")
    figure.legend(loc="outside lower center", ncols=1)
    return figure


def _square(curves: int) -> tuple[Figure, Axes]:
    """A figure with a dashed diagonal, and room for the legend of so many curves."""
    figure = style.new_figure(height=3.9 + 0.19 * (curves + 1))
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=style.INK, lw=0.9, ls=(0, (2, 3)))
    return figure, axes


def sweep(rows: Sequence[Row], groups: Sequence[Group]) -> Figure:
    """Accuracy and its interval over δ, one line for each group of splits."""
    figure = style.new_figure(height=3.4)
    axes = figure.add_subplot()
    deltas = [row.delta for row in rows]
    width = (max(deltas) - min(deltas)) or 1.0
    for number, (group, colour) in enumerate(zip(groups, style.colours(len(groups)), strict=True)):
        drawn = [row for row in rows if row.key in group.predictions]
        if not drawn:
            continue
        shift = (number - (len(groups) - 1) / 2) * (0.012 * width)
        accuracies = [group.scores[row.key].test.accuracy for row in drawn]
        centre, low, high = np.array([(a.value, a.low, a.high) for a in accuracies]).T
        axes.errorbar(
            np.array([row.delta for row in drawn]) + shift, centre, [centre - low, high - centre],
            color=colour, marker="o", ms=4.5, elinewidth=1.3, label=group.heading,
        )  # fmt: skip
    axes.set_xticks(deltas, [f"{delta:g}" for delta in deltas])
    axes.set_xlabel("Margin δ of the triplets (squared distance)")
    axes.set_ylabel("Accuracy on test patients")
    if len(groups) > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, borderaxespad=0.2)
    return figure


def planes(panels: Sequence[Plane], classes: Sequence[str]) -> Figure:
    """Patients in the plane, one panel for each row: training filled, test as rings.

    Args:
        panels: one to four.
        classes: in the order of their colours.
    """
    across = 1 if len(panels) == 1 else 2
    down = math.ceil(len(panels) / across)
    size = style.WIDTH if across == 1 else 2.9
    figure = style.new_figure(size * across, 0.5 + (0.35 + 0.92 * size) * down)
    colour_of = dict(zip(classes, style.colours(len(classes)), strict=True))
    for number, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(down, across, number)
        points = panel.points()
        for name, colour in colour_of.items():
            chosen = panel.vectors.label == name
            training, test = (points[chosen & (panel.vectors.part == p)] for p in ("train", "test"))
            large = {"rasterized": len(points) > 3000}
            axes.scatter(*training.T, s=11, color=colour, linewidths=0, alpha=0.55, **large)
            axes.scatter(
                *test.T, s=22, facecolors="none", edgecolors=colour, linewidths=0.9, alpha=0.95,
                **large,
            )  # fmt: skip
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(visible=True, color=style.GRID)
        axes.set_title(style.plain(panel.title), fontsize=9, loc="left")
        axes.margins(0.05)
        axes.grid(visible=False)
    handles = [
        Line2D([], [], ls="", marker="o", ms=5, color=colour, label=style.plain(name))
        for name, colour in colour_of.items()
    ]
    for label, face in (("training", style.INK), ("test", "none")):
        handles.append(
            Line2D([], [], ls="", marker="o", ms=4.5, mfc=face, mec=style.INK, label=label)
        )
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(4, len(handles)), handletextpad=0.1
    )
    return figure
