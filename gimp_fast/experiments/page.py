"""``report.html`` of a table: one self-contained page, and its figures as files beside it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.figure
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gimp_fast.experiments import figures
from gimp_fast.experiments.collect import Finished
from gimp_fast.experiments.paper import PAPER, Experiment
from gimp_fast.experiments.results import Group
from gimp_fast.experiments.tables import Grid, group_heading
from gimp_fast.experiments.vectors import vectors_of
from gimp_fast.files.atomic import write_text
from gimp_fast.pages import style
from gimp_fast.pages.svg import inline_svg

MOST_CURVES = 5
FEWEST_FOR_TSNE = 10


@dataclass(frozen=True)
class Drawing:
    """Attributes:
    name: file stem below ``figures/``.
    caption: what it shows and what to mind.
    alt: the same for readers who cannot see it.
    """

    name: str
    title: str
    caption: str
    alt: str
    figure: matplotlib.figure.Figure


@dataclass(frozen=True)
class Shown:
    title: str
    caption: str
    svg: Markup


@dataclass(frozen=True)
class Contents:
    """What a page shows.

    Attributes:
        results: what ``results.json`` holds.
        grids: title -> table, in order.
        notes: how the numbers are made, a paragraph each.
        groups: with the predictions that figures need.
        finished: row key -> its runs.
    """

    experiment: Experiment
    results: dict[str, Any]
    grids: dict[str, Grid]
    notes: Sequence[str]
    groups: Sequence[Group]
    finished: dict[str, list[Finished]]


def write_page(contents: Contents, out: Path) -> Path:
    """Write ``figures/*.png``, ``figures/*.svg`` and ``report.html``; returns the latter's path."""
    folder = out / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("*.png"), *folder.glob("*.svg")]:
        old.unlink()  # figures of an earlier call would contradict this one's
    shown = []
    with style.rc():
        for drawing in _drawings(contents):
            stem = folder / drawing.name
            style.save(drawing.figure, stem)
            svg = stem.with_suffix(".svg").read_text(encoding="utf-8")
            inline = inline_svg(svg, drawing.name, drawing.alt)
            shown.append(Shown(drawing.title, drawing.caption, inline))
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader("gimp_fast.experiments"), PackageLoader("gimp_fast.report")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("experiment.html.j2").render(
        experiment=contents.experiment,
        results=contents.results,
        tiles=_tiles(contents),
        grids=contents.grids,
        notes=contents.notes,
        heading=group_heading,
        figures=shown,
        paper=PAPER,
    )
    report = out / "report.html"
    write_text(report, page)
    return report


def _tiles(contents: Contents) -> list[dict[str, Any]]:
    """The reference row's accuracy in each group of splits."""
    if contents.experiment.name == "fig2":
        return []  # what is asked there is no accuracy
    key = contents.experiment.reference
    row = next((row for row in contents.results["rows"] if row["key"] == key), None)
    tiles = []
    for group, numbers in (row["groups"] if row else {}).items():
        if numbers["test"]:
            tiles.append(
                {"title": f"{row['title']}, {group_heading(group)}", **numbers["test"]["accuracy"]}
            )
    return tiles


def _drawings(contents: Contents) -> Iterator[Drawing]:
    if contents.experiment.name == "fig2":
        yield from _planes(contents)
    elif contents.experiment.name == "delta":
        yield _sweep(contents)
    # By kind first: figures of two groups of splits stand side by side.
    groups = [group for group in contents.groups if group.test]
    yield from (_accuracies(contents, group) for group in groups)
    curves = [list(_curves(contents, group)) for group in groups]
    yield from itertools.chain.from_iterable(zip(*curves, strict=True))


def _accuracies(contents: Contents, group: Group) -> Drawing:
    where, rows = group_heading(group.name), contents.results["rows"]
    said = "; ".join(
        f"{row['title']} {test['accuracy']['value']:.3f}"
        for row in rows
        if (test := row["groups"][group.name]["test"])
    )
    return Drawing(
        f"accuracy_{group.name}", f"Accuracy, {where}",
        "Accuracy over all folds and seeds with its bootstrap 95 % interval over "
        f"{len(group.patients)} patients. GiMP is in colour.",
        f"Accuracy on test patients, {where}: {said}",
        figures.accuracy_by_row(rows, group.name),
    )  # fmt: skip


def _curves(contents: Contents, group: Group) -> Iterator[Drawing]:
    """ROC and reliability of the reference and of the best rows of each section."""
    chosen = _notable(contents, group)
    titles = {row["key"]: _full_title(row, contents) for row in contents.results["rows"]}
    test = {titles[key]: group.test[key] for key in chosen}
    palette = ["#8c8c8c", *style.CATEGORIES[1:6]]
    others = [key for key in chosen if key != contents.experiment.reference]
    colours = {titles[key]: palette[place % len(palette)] for place, key in enumerate(others)}
    if contents.experiment.reference in chosen:
        colours[titles[contents.experiment.reference]] = style.ACCENT
    where, names = group_heading(group.name), ", ".join(test)
    which = "The best row of each section" if len(others) < len(group.test) - 1 else "Every row"
    classes = contents.results["cohort"]["classes"]
    if len(classes) == 2:
        positive = f"“{classes[1]}” is the positive class"
    else:
        positive = "each class against the rest, mean of all"
    yield Drawing(
        f"roc_{group.name}", f"ROC, {where}",
        f"{which}; {positive}; mean of the curves of single runs.",
        f"ROC curves, {where}: {names}", figures.roc(test, colours),
    )  # fmt: skip
    yield Drawing(
        f"reliability_{group.name}", f"Calibration, {where}",
        f"{which}. On the dashed line, calls made with 80 % probability are right in 80 %; below "
        "it, the model is too sure. Bins hold equally many predictions.",
        f"Reliability curves, {where}: {names}", figures.reliability(test, colours),
    )  # fmt: skip


def _full_title(row: dict[str, Any], contents: Contents) -> str:
    """With the section where several rows have the title."""
    same = [other for other in contents.results["rows"] if other["title"] == row["title"]]
    return f"{row['title']} ({row['section']})" if len(same) > 1 else row["title"]


def _notable(contents: Contents, group: Group) -> list[str]:
    """Keys of few enough rows to tell apart in a figure, the reference last."""
    reference = contents.experiment.reference
    scored = [
        (row["section"], row["groups"][group.name]["test"]["accuracy"]["value"], row["key"])
        for row in contents.results["rows"]
        if row["key"] in group.test and row["key"] != reference
    ]
    if len(scored) >= MOST_CURVES:
        best: dict[str, tuple[float, str]] = {}
        for section, value, key in scored:
            if section not in best or value > best[section][0]:
                best[section] = (value, key)
        scored = [(section, value, key) for section, (value, key) in best.items()]
    keys = [key for _, _, key in scored]
    return [*keys, reference] if reference in group.test else keys


def _sweep(contents: Contents) -> Drawing:
    rows = contents.results["rows"]
    values = [float(row["overrides"][0].partition("=")[2]) for row in rows]
    return Drawing(
        "delta", "Accuracy over δ",
        "With bootstrap 95 % intervals over patients. Groups of splits are shifted sideways a "
        "little, so that their intervals do not cover each other.",
        f"Accuracy on test patients for margins δ of {', '.join(f'{v:g}' for v in values)}",
        figures.sweep(values, rows, [group.name for group in contents.groups]),
    )  # fmt: skip


def _planes(contents: Contents) -> Iterator[Drawing]:
    """The four panels of Fig. 2, of the first fold and seed of each group of splits."""
    titles = {row["key"]: row["title"] for row in contents.results["rows"]}
    for group in contents.groups:
        drawn = []
        for key, title in titles.items():
            runs = [one for one in contents.finished.get(key, []) if one.run.split in group.splits]
            if not runs:
                continue
            vectors = vectors_of(runs[0])
            if len(vectors.vectors) >= FEWEST_FOR_TSNE and vectors.vectors.std(axis=0).any():
                drawn.append((title, vectors, figures.embedded(vectors)))
                last = runs[0].run
        if drawn:
            counts = {part: int((drawn[0][1].part == part).sum()) for part in ("train", "test")}
            yield Drawing(
                f"tsne_{group.name}", f"After pre-training, {group_heading(group.name)}",
                f"t-SNE of {counts['train']} training patients and {counts['test']} test patients "
                f"(rings), fold {last.split}, seed {last.seed}. Only neighbourhoods mean "
                "something: distances between groups and their sizes do not.",
                f"t-SNE of patients after pre-training: {', '.join(t for t, _, _ in drawn)}",
                figures.panels(drawn, contents.results["cohort"]["classes"]),
            )  # fmt: skip
