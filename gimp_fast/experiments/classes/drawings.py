"""The figures of a table of classes, each with its caption."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from gimp_fast.experiments.classes import figures
from gimp_fast.experiments.classes.results import Group, Results
from gimp_fast.experiments.classes.vectors import pretrained_vectors
from gimp_fast.experiments.document import Drawing
from gimp_fast.experiments.row_figure import Line, figure_of_rows
from gimp_fast.experiments.rows import Row
from gimp_fast.pages import style

MOST_CURVES = 5
FEWEST_FOR_TSNE = 10


def drawings(results: Results) -> Iterator[Drawing]:
    """Every figure, in the order of the page."""
    if results.experiment.name == "fig2":
        yield from _planes(results)
    elif results.experiment.name == "delta":
        yield _sweep(results)
    # By kind first: figures of two groups of splits stand side by side.
    groups = [group for group in results.groups if group.predictions]
    yield from (_accuracies(results, group) for group in groups)
    curves = [list(_curves(results, group)) for group in groups]
    yield from itertools.chain.from_iterable(zip(*curves, strict=True))


def _accuracies(results: Results, group: Group) -> Drawing:
    rows = [row for row in results.rows if row.key in group.predictions]
    tests = {row: group.scores[row.key].test for row in rows}
    lines = {row: Line(test.accuracy, test.accuracy_of_runs.values) for row, test in tests.items()}
    values = "; ".join(f"{row.title} {test.accuracy.value:.3f}" for row, test in tests.items())
    return Drawing(
        f"accuracy_{group.name}", f"Accuracy, {group.heading}",
        "Accuracy over all folds and seeds with its bootstrap 95 % interval over "
        f"{group.units.words}. GiMP is in colour.",
        f"Accuracy on test patients, {group.heading}: {values}",
        figure_of_rows(lines, "Accuracy on test patients"),
    )  # fmt: skip


def _curves(results: Results, group: Group) -> Iterator[Drawing]:
    """ROC and reliability of the reference and of the best rows of each section."""
    palette = itertools.cycle(["#8c8c8c", *style.CATEGORIES[1:6]])
    curves = []
    for row in _notable(results, group):
        colour = style.ACCENT if row.key == results.experiment.reference else next(palette)
        title = _full_title(row, results)
        curves.append(figures.Curve(title, group.predictions[row.key], colour))
    names = ", ".join(curve.title for curve in curves)
    everyone = len(curves) == len(group.predictions)
    which = "Every row" if everyone else "The best row of each section"
    positive, classes = "each class against the rest, mean of all", results.call.cohort.classes
    if len(classes) == 2:
        positive = f"“{classes[1]}” is the positive class"
    yield Drawing(
        f"roc_{group.name}", f"ROC, {group.heading}",
        f"{which}; {positive}; mean of the curves of single runs.",
        f"ROC curves, {group.heading}: {names}", figures.roc(curves),
    )  # fmt: skip
    yield Drawing(
        f"reliability_{group.name}", f"Calibration, {group.heading}",
        f"{which}. On the dashed line, predictions made with 80 % probability are right in 80 %; "
        "below it, the model is too sure. Each bin holds equally many predictions.",
        f"Reliability curves, {group.heading}: {names}", figures.reliability_curves(curves),
    )  # fmt: skip


def _full_title(row: Row, results: Results) -> str:
    """The title of a row, with its section if another row has the same title."""
    same = [other for other in results.rows if other.title == row.title]
    return f"{row.title} ({row.section})" if len(same) > 1 else row.title


def _notable(results: Results, group: Group) -> list[Row]:
    """Few enough rows to tell apart in a figure, the reference last."""
    reference = results.experiment.reference
    drawn = [row for row in results.rows if row.key in group.predictions]
    rows = [row for row in drawn if row.key != reference]
    if len(rows) >= MOST_CURVES:
        accuracy = {row: group.scores[row.key].test.accuracy.value for row in rows}
        sections = itertools.groupby(rows, key=lambda row: row.section)
        rows = [max(of_section, key=accuracy.get) for _, of_section in sections]
    return rows + [row for row in drawn if row.key == reference]


def _sweep(results: Results) -> Drawing:
    deltas = ", ".join(f"{row.delta:g}" for row in results.rows)
    return Drawing(
        "delta", "Accuracy over δ",
        "With bootstrap 95 % intervals. Groups of splits are shifted sideways a "
        "little, so that their intervals do not cover each other.",
        f"Accuracy on test patients for margins δ of {deltas}",
        figures.sweep(results.rows, results.groups),
    )  # fmt: skip


def _planes(results: Results) -> Iterator[Drawing]:
    """The four panels of Fig. 2, of the first fold and seed of each group of splits."""
    for group in results.groups:
        panels = {}
        for row in results.rows:
            for finished in group.finished.get(row.key, ())[:1]:
                vectors = pretrained_vectors(finished.run, finished.folder)
                if len(vectors.vectors) >= FEWEST_FOR_TSNE and vectors.vectors.std(axis=0).any():
                    panels[row.title] = vectors
                    part, run = vectors.part, finished.run
        if panels:
            yield Drawing(
                f"tsne_{group.name}", f"After pre-training, {group.heading}",
                f"t-SNE of {(part == 'train').sum()} training patients and "
                f"{(part == 'test').sum()} test patients (rings), fold {run.split}, seed "
                f"{run.seed}. Only neighbourhoods carry meaning: distances between clusters and "
                "their sizes do not.",
                f"t-SNE of patients after pre-training: {', '.join(panels)}",
                figures.planes(panels, results.call.cohort.classes),
            )  # fmt: skip
