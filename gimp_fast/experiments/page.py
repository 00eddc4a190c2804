"""``report.html`` of a table: one self-contained page, and its figures as files beside it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gimp_fast.experiments import figures
from gimp_fast.experiments.paper import Row
from gimp_fast.experiments.results import Group, Results
from gimp_fast.experiments.tables import Grid
from gimp_fast.experiments.vectors import pretrained_vectors
from gimp_fast.files.atomic import write_text
from gimp_fast.pages import style
from gimp_fast.pages.svg import inline_svg
from gimp_fast.pages.templates import get_template
from gimp_fast.runs import layout

MOST_CURVES = 5
FEWEST_FOR_TSNE = 10


@dataclass(frozen=True)
class Drawing:
    """A figure; ``name`` is its file stem, ``alt`` is for readers who cannot see it."""

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure


def write_page(
    results: Results, facts: dict[str, Any], grids: dict[str, Grid], notes: Sequence[str], out: Path
) -> Path:
    """Write ``figures/*.png``, ``figures/*.svg`` and ``report.html``; returns the latter's path.

    ``facts`` is what ``results.json`` holds, ``notes`` are paragraphs, ``out`` is a folder.
    """
    folder = out / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("*.png"), *folder.glob("*.svg")]:
        old.unlink()  # figures of an earlier call would contradict this one's
    shown = []
    with style.rc():
        for drawing in _drawings(results):
            stem = folder / drawing.name
            style.save(drawing.figure, stem)
            svg = stem.with_suffix(".svg").read_text(encoding="utf-8")
            shown.append((drawing, inline_svg(svg, drawing.name, drawing.alt)))
    packages = ("gimp_fast.experiments", "gimp_fast.report")
    template = get_template("experiment.html.j2", *packages)
    tables = {"tiles": _tiles(results), "grids": grids, "notes": notes}
    page = template.render(results=facts, groups=results.groups, figures=shown, **tables)
    write_text(out / layout.REPORT, page)
    return out / layout.REPORT


def _tiles(results: Results) -> list[tuple[str, Any]]:
    """(title, accuracy) of the reference row in each group of splits."""
    if results.experiment.name == "fig2":
        return []  # Figure 2 does not ask for accuracy
    row = results.experiment.reference_row
    return [
        (f"{row.title}, {group.heading}", group.scores[row.key].test.accuracy)
        for group in results.groups
        if row.key in group.predictions
    ]


def _drawings(results: Results) -> Iterator[Drawing]:
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
    values = "; ".join(
        f"{row.title} {group.scores[row.key].test.accuracy.value:.3f}" for row in rows
    )
    return Drawing(
        f"accuracy_{group.name}", f"Accuracy, {group.heading}",
        "Accuracy over all folds and seeds with its bootstrap 95 % interval over "
        f"{group.units.words}. GiMP is in colour.",
        f"Accuracy on test patients, {group.heading}: {values}",
        figures.accuracy_by_row(rows, group),
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
