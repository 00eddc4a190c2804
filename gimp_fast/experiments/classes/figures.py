"""The drawings of the tables: numbers in, a matplotlib figure out."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.manifold import TSNE

from gimp_fast.evaluation.calibration import BINS, reliability
from gimp_fast.evaluation.rates import Predictions, mean_roc
from gimp_fast.experiments.classes.results import Group
from gimp_fast.experiments.classes.vectors import Vectors
from gimp_fast.experiments.rows import Row
from gimp_fast.pages import style

GRID = np.linspace(0, 1, 201)
TSNE_SEED = 0
LONGEST_LINE = 52  # of a legend, in characters; the figure cuts off longer ones
FEWEST_IN_A_BIN = 25  # of a curve; fewer would draw chance


@dataclass(frozen=True)
class Curve:
    """A row in a figure of curves."""

    title: str
    predictions: Predictions
    colour: str


def reliability_curves(curves: Sequence[Curve]) -> Figure:
    """Share of right predictions against the probability that the model gave them."""
    points = []
    for predictions in (curve.predictions for curve in curves):
        most = int(np.clip(len(predictions) // FEWEST_IN_A_BIN, 2, BINS))
        bins = reliability(predictions.confidence, predictions.hits, most)
        points.append((bins.confidence, bins.share))
    labels = "Probability of the predicted class", "Share of predictions that are right"
    return _around_diagonal(curves, points, labels, marker="o", ms=3.5)


def roc(curves: Sequence[Curve]) -> Figure:
    """ROC curves, averaged over classes and runs at each false positive rate."""
    points = [(np.r_[0, GRID], np.r_[0, mean_roc(curve.predictions, GRID)]) for curve in curves]
    labels = "False positive rate (1 − specificity)", "True positive rate (sensitivity)"
    return _around_diagonal(curves, points, labels)


def _around_diagonal(
    curves: Sequence[Curve],
    points: Sequence[tuple[np.ndarray, np.ndarray]],
    labels: tuple[str, str],
    **look: Any,
) -> Figure:
    """A square with a dashed diagonal and a line through the points (x, y) of each curve."""
    titles = [textwrap.fill(style.plain(curve.title), LONGEST_LINE) for curve in curves]
    lines = sum(len(title.splitlines()) for title in titles)
    figure = style.new_figure(height=3.9 + 0.19 * (lines + 1))
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=style.INK, lw=0.9, ls=(0, (2, 3)))
    for curve, title, (x, y) in zip(curves, titles, points, strict=True):
        axes.plot(x, y, color=curve.colour, label=title, clip_on=False, **look)
    low = np.floor(10 * min(np.min(xy) for xy in points)) / 10
    axes.set(xlim=(low, 1), ylim=(low, 1), aspect="equal", xlabel=labels[0], ylabel=labels[1])
    figure.legend(loc="outside lower center", ncols=1)
    return figure


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
    margin = "Margin δ of the triplets (squared distance)"
    axes.set(xlabel=margin, ylabel="Accuracy on test patients")
    if len(groups) > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, borderaxespad=0.2)
    return figure


def planes(panels: Mapping[str, Vectors], classes: Sequence[str]) -> Figure:
    """Patients where t-SNE puts them, a panel for each title: training filled, test as rings."""
    across = 1 if len(panels) == 1 else 2
    down = math.ceil(len(panels) / across)
    size = style.WIDTH if across == 1 else 2.9
    figure = style.new_figure(size * across, 0.5 + (0.35 + 0.92 * size) * down)
    colour_of = dict(zip(classes, style.colours(len(classes)), strict=True))
    for number, (title, patients) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(down, across, number)
        perplexity = min(30.0, (len(patients.vectors) - 1) / 3)
        tsne = TSNE(perplexity=perplexity, init="pca", random_state=TSNE_SEED)
        points = tsne.fit_transform(patients.vectors)  # (n, 2)
        for name, colour in colour_of.items():
            chosen = patients.label == name
            training, test = (points[chosen & (patients.part == p)] for p in ("train", "test"))
            large = {"rasterized": len(points) > 3000}
            axes.scatter(*training.T, s=11, color=colour, linewidths=0, alpha=0.55, **large)
            axes.scatter(
                *test.T, s=22, facecolors="none", edgecolors=colour, linewidths=0.9, alpha=0.95,
                **large,
            )  # fmt: skip
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(visible=True, color=style.GRID)
        axes.set_title(style.plain(title), fontsize=9, loc="left")
        axes.margins(0.05)
        axes.grid(visible=False)
    dot = partial(Line2D, [], [], ls="", marker="o")
    handles = [dot(ms=5, color=c, label=style.plain(name)) for name, c in colour_of.items()]
    handles.append(dot(ms=4.5, mfc=style.INK, mec=style.INK, label="training"))
    handles.append(dot(ms=4.5, mfc="none", mec=style.INK, label="test"))
    ncols = min(4, len(handles))
    figure.legend(handles=handles, loc="outside lower center", ncols=ncols, handletextpad=0.1)
    return figure
