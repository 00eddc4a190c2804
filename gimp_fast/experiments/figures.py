"""The drawings of the tables: numbers in, a matplotlib figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from sklearn.manifold import TSNE
from sklearn.metrics import roc_curve

from gimp_fast.evaluation import comparison as statistics
from gimp_fast.evaluation.comparison import Predictions
from gimp_fast.experiments.collect import Vectors
from gimp_fast.experiments.tables import group_heading
from gimp_fast.pages import style

ROW_HEIGHT = 0.27  # inches
GRID = np.linspace(0, 1, 201)
TSNE_SEED = 0
FEWEST_IN_A_BIN = 25  # of a curve; fewer would draw chance


def accuracy_by_row(rows: Sequence[dict[str, Any]], group: str) -> Figure:
    """Accuracy and its interval of every row, single runs behind it, the paper's figure beside it.

    Args:
        rows: of ``results.json``; those without a finished run are left out.
        group: of splits.
    """
    drawn = [row for row in rows if _test(row, group)]
    lines: list[dict[str, Any] | str] = []
    for row in drawn:
        if row["section"] not in lines:
            lines.append(row["section"])
        lines.append(row)
    figure = style.new_figure(style.WIDTH + 0.9, 1.1 + ROW_HEIGHT * len(lines))
    axes = figure.add_subplot()
    lowest = 1.0
    for place, row in enumerate(lines):
        if isinstance(row, str):
            continue
        test, colour = _test(row, group), style.ACCENT if row["ours"] else style.INK
        runs, estimate = test["accuracy_of_runs"]["values"], test["accuracy"]
        if len(runs) > 1:
            axes.plot(
                runs, [place + 0.3] * len(runs), ls="", marker="o", ms=3, color=colour, alpha=0.4,
                mew=0,
            )  # fmt: skip
        axes.plot([estimate["low"], estimate["high"]], [place, place], color=colour, lw=1.8)
        axes.plot(estimate["value"], place, marker="o", ms=5.5, color=colour)
        lowest = min([lowest, estimate["low"], *runs])
        if row["paper"]:
            value = row["paper"]["accuracy"]
            axes.plot(value, place, marker="D", ms=4.5, mfc="none", mec=style.VAL, mew=1.1)
            lowest = min(lowest, value)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    labels = [row if isinstance(row, str) else style.plain(row["title"]) for row in lines]
    axes.set_yticks(range(len(lines)), labels)
    for label, row in zip(axes.get_yticklabels(), lines, strict=True):
        if isinstance(row, str):
            label.set_fontweight("bold")
        elif row["ours"]:
            label.set_color(style.ACCENT)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_xlim(max(0.0, np.floor(20 * (lowest - 0.01)) / 20), 1.015)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("Accuracy on test patients")
    several = any(len(_test(row, group)["accuracy_of_runs"]["values"]) > 1 for row in drawn)
    _dot_legend(figure, several, any(row["paper"] for row in drawn))
    return figure


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


def _test(row: dict[str, Any], group: str) -> dict[str, Any] | None:
    return row["groups"].get(group, {}).get("test")


def reliability(test: Mapping[str, Predictions], colours: Mapping[str, str]) -> Figure:
    """Share of right calls against the probability that the model gave them.

    Args:
        test: legend text -> predictions.
        colours: legend text -> colour.
    """
    figure = style.new_figure(height=3.9 + 0.19 * (len(test) + 1))
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=style.INK, lw=0.9, ls=(0, (2, 3)))
    lowest = 1.0
    for name, predictions in test.items():
        confidence = predictions.probabilities[np.arange(len(predictions)), predictions.predicted]
        bins = int(np.clip(len(predictions) // FEWEST_IN_A_BIN, 2, statistics.BINS))
        said, right, _ = statistics.reliability(confidence, predictions.hits, bins)
        axes.plot(
            said, right, marker="o", ms=3.5, color=colours[name], label=style.plain(name),
            clip_on=False,
        )  # fmt: skip
        lowest = min(lowest, said.min(), right.min())
    low = np.floor(10 * lowest) / 10
    axes.set(xlim=(low, 1), ylim=(low, 1), aspect="equal")
    axes.set_xlabel("Probability that the model gave its call")
    axes.set_ylabel("Share of calls that were right")
    figure.legend(loc="outside lower center", ncols=1)
    return figure


def roc(test: Mapping[str, Predictions], colours: Mapping[str, str]) -> Figure:
    """ROC curves, averaged over classes and runs at each false positive rate.

    Args:
        test: legend text -> predictions.
        colours: legend text -> colour.
    """
    figure = style.new_figure(height=3.9 + 0.19 * (len(test) + 1))
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=style.INK, lw=0.9, ls=(0, (2, 3)))
    for name, predictions in test.items():
        axes.plot(
            np.r_[0, GRID], np.r_[0, mean_roc(predictions)], color=colours[name],
            label=style.plain(name), clip_on=False,
        )  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xlabel("False positive rate (1 − specificity)")
    axes.set_ylabel("True positive rate (sensitivity)")
    figure.legend(loc="outside lower center", ncols=1)
    return figure


def mean_roc(predictions: Predictions) -> np.ndarray:
    """True positive rate at each point of ``GRID``."""
    curves = []
    for number in np.unique(predictions.run):
        run = predictions.of_run(number)
        for positive in [1] if run.classes == 2 else range(run.classes):
            truth = run.label == positive
            if truth.any() and not truth.all():
                false_positive, true_positive, _ = roc_curve(truth, run.probabilities[:, positive])
                curves.append(np.interp(GRID, false_positive, true_positive))
    return np.mean(curves, axis=0)


def sweep(values: Sequence[float], rows: Sequence[dict[str, Any]], groups: Sequence[str]) -> Figure:
    """Accuracy and its interval over the values of a setting, one line a group of splits."""
    figure = style.new_figure(height=3.4)
    axes = figure.add_subplot()
    width = (max(values) - min(values)) or 1.0
    for number, (group, colour) in enumerate(zip(groups, style.colours(len(groups)), strict=True)):
        points = [
            (value, row["groups"][group]["test"]["accuracy"])
            for value, row in zip(values, rows, strict=True)
            if _test(row, group)
        ]
        if not points:
            continue
        x = np.array([value for value, _ in points]) + (number - (len(groups) - 1) / 2) * (
            0.012 * width
        )
        centre, low, high = (
            np.array([estimate[key] for _, estimate in points]) for key in ("value", "low", "high")
        )
        axes.errorbar(
            x, centre, [centre - low, high - centre], color=colour, marker="o", ms=4.5,
            elinewidth=1.3, label=group_heading(group),
        )  # fmt: skip
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.set_xlabel("Margin δ of the triplets (squared distance)")
    axes.set_ylabel("Accuracy on test patients")
    if len(groups) > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, borderaxespad=0.2)
    return figure


def embedded(vectors: Vectors) -> np.ndarray:
    """The plane that t-SNE finds for patients, (n, 2)."""
    perplexity = min(30.0, (len(vectors.vectors) - 1) / 3)
    return TSNE(
        perplexity=perplexity, init="pca", learning_rate="auto", random_state=TSNE_SEED
    ).fit_transform(vectors.vectors)


def panels(drawn: Sequence[tuple[str, Vectors, np.ndarray]], classes: Sequence[str]) -> Figure:
    """Patients in the plane, one panel a row: training filled, test as rings.

    Args:
        drawn: (title, vectors, points) of one to four panels.
        classes: in the order of their colours.
    """
    across = 1 if len(drawn) == 1 else 2
    down = -(-len(drawn) // across)
    size = style.WIDTH if across == 1 else 2.9
    figure = style.new_figure(size * across, 0.5 + (0.35 + 0.92 * size) * down)
    colour_of = dict(zip(classes, style.colours(len(classes)), strict=True))
    for number, (title, vectors, points) in enumerate(drawn, start=1):
        axes = figure.add_subplot(down, across, number)
        for name, colour in colour_of.items():
            for part in ("train", "test"):
                chosen = (vectors.label == name) & (vectors.part == part)
                filled = part == "train"
                axes.scatter(
                    points[chosen, 0], points[chosen, 1], s=11 if filled else 22,
                    facecolors=colour if filled else "none", edgecolors=colour,
                    linewidths=0 if filled else 0.9, alpha=0.55 if filled else 0.95,
                    rasterized=len(points) > 3000,
                )  # fmt: skip
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(visible=True, color=style.GRID)
        axes.set_title(style.plain(title), fontsize=9, loc="left")
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
