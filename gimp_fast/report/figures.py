"""Draws the figures: arrays in, a matplotlib figure out. panels.py decides what is drawn."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from gimp_fast.pages import style

# Marker, size and opacity of the patients of each part.
SPLIT_LOOKS = {"train": ("o", 14, 0.55), "val": ("^", 22, 0.95), "test": ("D", 20, 0.95)}
RASTERIZE_ABOVE = 3000  # points; an SVG with more of them is slow to open


def curve(
    series: Mapping[str, Mapping[int, float]],
    label: str,
    best_epoch: int | None = None,
    is_share: bool = False,
) -> Figure:
    """One metric over the epochs of a stage.

    Args:
        series: part ("train", "val") -> epoch -> value.
        label: y axis label.
        best_epoch: the epoch whose weights were kept, to be marked.
        is_share: the metric cannot exceed 1.
    """
    figure = style.new_figure(width=4.0, height=2.8)
    axes = figure.add_subplot()
    looks = {"train": ("training", style.TRAIN, "o"), "val": ("validation", style.VAL, "s")}
    for part, points in series.items():
        name, colour, marker = looks[part]
        axes.plot(
            list(points), list(points.values()), color=colour, label=name,
            marker=marker if len(points) <= 25 else None, markersize=3.5,
        )  # fmt: skip
    if best_epoch is not None:
        axes.axvline(
            best_epoch, color=style.INK, lw=1, ls=(0, (4, 3)), label=f"best epoch ({best_epoch})"
        )
    if is_share:
        low = min(min(points.values()) for points in series.values())
        axes.set_ylim(max(0.0, min(low - 0.05, 0.9)), 1.02)
    first, last = min(map(min, series.values())), max(map(max, series.values()))
    margin = max(0.5, 0.02 * (last - first))  # a single epoch gets an axis too
    axes.set(xlabel="Epoch", ylabel=label, xlim=(first - margin, last + margin))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, borderaxespad=0.2)
    return figure


def confusion(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """Confusion matrix: counts, and their share of the true class, which also sets the shade.

    Args:
        counts: (K, K) int, rows true, columns predicted.
    """
    size = len(classes)
    is_small = size <= 3
    longest = max(max(map(len, _wrap(name).split("\n"))) for name in classes)
    side = max(size * (0.8 if is_small else 0.62), 2.2)
    figure = style.new_figure(side + 1.0 + 0.06 * longest, side + (0.8 if is_small else 1.2))
    axes = figure.add_subplot()
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    for (row, column), share in np.ndenumerate(shares):
        corner = (column - 0.5, row - 0.5)
        axes.add_patch(
            Rectangle(corner, 1, 1, facecolor=style.ACCENT, alpha=share, linewidth=0, zorder=0.5)
        )
        percent = f"{100 * share:.0f} %" if totals[row, 0] else "–"
        look = {"ha": "center", "color": "white" if share > 0.55 else style.INK}
        count, above, below = f"{counts[row, column]}", row - 0.06, row + 0.06
        axes.text(column, above, count, va="bottom", fontsize=11 if is_small else 9, **look)
        axes.text(column, below, percent, va="top", fontsize=8 if is_small else 7, **look)
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal")
    axes.set(xlabel="Predicted class", ylabel="True class")
    names = [style.plain(_wrap(name)) for name in classes]
    tilted = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(size), names, **({} if is_small and longest <= 12 else tilted))
    axes.set_yticks(range(size), names)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for edge in np.arange(-0.5, size):
        axes.axhline(edge, color=style.GRID, lw=0.8)
        axes.axvline(edge, color=style.GRID, lw=0.8)
    axes.spines[:].set_visible(False)
    return figure


def roc(curves: Sequence[tuple[str, str, tuple[np.ndarray, np.ndarray]]]) -> Figure:
    """Receiver operating characteristic.

    Args:
        curves: legend text, colour, and false and true positive rates, (points,) each.
    """
    figure = style.new_figure(height=3.9 + 0.19 * (len(curves) + 1))
    axes = figure.add_subplot()
    for text, colour, points in curves:
        axes.plot(*points, color=colour, label=style.plain(text), clip_on=False, zorder=3)
    chance = "chance (AUC 0.50)"
    axes.plot([0, 1], [0, 1], color=style.INK, lw=0.9, ls=(0, (2, 3)), label=chance)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xlabel("False positive rate (1 − specificity)")
    axes.set_ylabel("True positive rate (sensitivity)")
    figure.legend(loc="outside lower center", ncols=1)
    return figure


def scatter(
    points: np.ndarray, labels: np.ndarray, splits: np.ndarray, classes: Sequence[str]
) -> Figure:
    """Patients in a plane: colour by class, marker by split.

    Args:
        points: (n, 2) float.
        labels, splits: (n,) unicode.
        classes: every class, in the order of their colours.
    """
    longest = max(map(len, classes))
    columns = 1 if longest > 34 else 2 if longest > 14 else 4
    figure = style.new_figure(height=3.6 + 0.19 * (-(-len(classes) // columns) + 1))
    axes = figure.add_subplot()
    colour_of = dict(zip(classes, style.colours(len(classes)), strict=True))
    present = [split for split in SPLIT_LOOKS if split in set(splits)]
    for split in present:
        marker, size, alpha = SPLIT_LOOKS[split]
        chosen = splits == split
        axes.scatter(
            *points[chosen].T,
            c=[colour_of[name] for name in labels[chosen]],
            marker=marker,
            s=size * (1 if len(points) <= 1500 else 0.5),
            alpha=alpha,
            linewidths=0.4,
            edgecolors=style.SURFACE,
            rasterized=len(points) > RASTERIZE_ABOVE,
        )
    axes.set(xlabel="t-SNE 1 (arbitrary units)", ylabel="t-SNE 2 (arbitrary units)")
    axes.set(xticks=[], yticks=[])
    axes.margins(0.05)
    look = {"ls": "", "markersize": 5}
    axes.legend(
        handles=[
            Line2D([], [], marker=SPLIT_LOOKS[split][0], color=style.INK, label=split, **look)
            for split in present
        ],
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, borderaxespad=0.2,
        handletextpad=0.2,
    )  # fmt: skip
    figure.legend(
        handles=[
            Line2D([], [], marker="o", color=colour, label=style.plain(name), **look)
            for name, colour in colour_of.items()
        ],
        loc="outside lower center", ncols=columns, handletextpad=0.2,
    )  # fmt: skip
    return figure


def _wrap(name: str, width: int = 18) -> str:
    return "\n".join(textwrap.wrap(name, width)) or name
