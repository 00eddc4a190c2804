"""Draws the figures: arrays in, a matplotlib figure out. panels.py decides what is drawn."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from gimp_fast.pages import style

SPLIT_MARKERS = {"train": "o", "val": "^", "test": "D"}
RASTERIZE_ABOVE = 3000  # points; an SVG with more of them is slow to open


def curve(
    epochs: Mapping[str, Sequence[int]],
    values: Mapping[str, Sequence[float]],
    label: str,
    best_epoch: int | None = None,
    is_share: bool = False,
) -> Figure:
    """One metric over the epochs of a stage.

    Args:
        epochs, values: split name ("train", "val") -> equally long sequences.
        label: y axis label.
        best_epoch: the epoch whose weights were kept, to be marked.
        is_share: the metric cannot exceed 1.
    """
    figure = style.new_figure(width=4.0, height=2.8)
    axes = figure.add_subplot()
    for split, colour, marker in (("train", style.TRAIN, "o"), ("val", style.VAL, "s")):
        if split in values:
            axes.plot(
                epochs[split],
                values[split],
                color=colour,
                label={"train": "training", "val": "validation"}[split],
                marker=marker if len(epochs[split]) <= 25 else None,
                markersize=3.5,
            )
    if best_epoch is not None:
        axes.axvline(
            best_epoch, color=style.INK, lw=1, ls=(0, (4, 3)), label=f"best epoch ({best_epoch})"
        )
    if is_share:
        low = min(float(np.nanmin(sequence)) for sequence in values.values())
        axes.set_ylim(max(0.0, min(low - 0.05, 0.9)), 1.02)
    axes.set_xlabel("Epoch")
    axes.set_ylabel(label)
    every = [epoch for sequence in epochs.values() for epoch in sequence]
    margin = max(0.5, 0.02 * (max(every) - min(every)))  # a single epoch gets an axis too
    axes.set_xlim(min(every) - margin, max(every) + margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, borderaxespad=0.2)
    return figure


def confusion(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """Confusion matrix: counts, and their share of the true class, which also sets the shade.

    Args:
        counts: (K, K) int, rows true, columns predicted.
    """
    size = len(classes)
    cell = 0.8 if size <= 3 else 0.62
    longest = max(max(map(len, _wrap(name).split("\n"))) for name in classes)
    side = max(size * cell, 2.2)
    figure = style.new_figure(side + 1.0 + 0.06 * longest, side + (0.8 if size <= 3 else 1.2))
    axes = figure.add_subplot()
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    for row, column in np.ndindex(size, size):
        share = shares[row, column]
        corner = (column - 0.5, row - 0.5)
        axes.add_patch(
            Rectangle(corner, 1, 1, facecolor=style.ACCENT, alpha=share, linewidth=0, zorder=0.5)
        )
        percent = f"{100 * share:.0f} %" if totals[row, 0] else "–"
        colour = "white" if share > 0.55 else style.INK
        axes.text(
            column, row - 0.06, f"{counts[row, column]}", ha="center", va="bottom", color=colour,
            fontsize=11 if size <= 3 else 9,
        )  # fmt: skip
        axes.text(
            column, row + 0.06, percent, ha="center", va="top", color=colour,
            fontsize=8 if size <= 3 else 7,
        )  # fmt: skip
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal")
    names = [style.plain(_wrap(name)) for name in classes]
    tilted = size > 3 or longest > 12
    axes.set_xticks(
        range(size), names, rotation=40 if tilted else 0, ha="right" if tilted else "center",
        rotation_mode="anchor" if tilted else "default",
    )  # fmt: skip
    axes.set_yticks(range(size), names)
    axes.set_xlabel("Predicted class")
    axes.set_ylabel("True class")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for edge in np.arange(-0.5, size):
        axes.axhline(edge, color=style.GRID, lw=0.8)
        axes.axvline(edge, color=style.GRID, lw=0.8)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def roc(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], colours: Mapping[str, str]) -> Figure:
    """Receiver operating characteristic.

    Args:
        curves: legend text -> (false positive rate, true positive rate), each (points,).
        colours: legend text -> colour.
    """
    rows = len(curves) + 1
    figure = style.new_figure(height=3.9 + 0.19 * rows)
    axes = figure.add_subplot()
    handles = []
    for name, (false_positive, true_positive) in curves.items():
        handles += axes.plot(
            false_positive, true_positive, color=colours[name], label=style.plain(name),
            clip_on=False, drawstyle="default", zorder=3,
        )  # fmt: skip
    handles += axes.plot(
        [0, 1], [0, 1], color=style.INK, lw=0.9, ls=(0, (2, 3)), label="chance (AUC 0.50)"
    )
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xlabel("False positive rate (1 − specificity)")
    axes.set_ylabel("True positive rate (sensitivity)")
    figure.legend(handles=handles, loc="outside lower center", ncols=1)
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
    present = [split for split in SPLIT_MARKERS if split in set(splits)]
    columns = 1 if max(map(len, classes)) > 34 else 2 if max(map(len, classes)) > 14 else 4
    rows = -(-len(classes) // columns) + 1
    figure = style.new_figure(height=3.6 + 0.19 * rows)
    axes = figure.add_subplot()
    colour_of = dict(zip(classes, style.colours(len(classes)), strict=True))
    for split in present:
        chosen = splits == split
        axes.scatter(
            points[chosen, 0],
            points[chosen, 1],
            c=[colour_of[name] for name in labels[chosen]],
            marker=SPLIT_MARKERS[split],
            s={"train": 14, "val": 22, "test": 20}[split] * (1 if len(points) <= 1500 else 0.5),
            alpha=0.55 if split == "train" else 0.95,
            linewidths=0.4,
            edgecolors=style.SURFACE,
            rasterized=len(points) > RASTERIZE_ABOVE,
        )
    axes.set(xlabel="t-SNE 1 (arbitrary units)", ylabel="t-SNE 2 (arbitrary units)")
    axes.set(xticks=[], yticks=[])
    axes.margins(0.05)
    _scatter_legends(figure, axes, colour_of, present, columns)
    return figure


def _scatter_legends(
    figure: Figure, axes: Axes, colour_of: Mapping[str, str], splits: Sequence[str], columns: int
) -> None:
    def dot(marker: str, colour: str, label: str) -> Line2D:
        return Line2D([], [], ls="", marker=marker, color=colour, markersize=5, label=label)

    axes.legend(
        handles=[dot(SPLIT_MARKERS[split], style.INK, split) for split in splits],
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, borderaxespad=0.2,
        handletextpad=0.2,
    )  # fmt: skip
    figure.legend(
        handles=[dot("o", colour, style.plain(name)) for name, colour in colour_of.items()],
        loc="outside lower center",
        ncols=columns,
        handletextpad=0.2,
    )


def _wrap(name: str, width: int = 18) -> str:
    return "\n".join(textwrap.wrap(name, width)) or name
