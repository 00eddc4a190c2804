"""What a table says, whatever it is about, and its files: numbers, tables, figures and a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gimp_fast.data import Cohort
from gimp_fast.evaluation.intervals import Estimate
from gimp_fast.experiments.finished import Finished
from gimp_fast.experiments.grid import Grid, latex_tables, markdown
from gimp_fast.files import safe_text
from gimp_fast.files.atomic import write_json, write_text
from gimp_fast.pages import style
from gimp_fast.pages.svg import inline_svg
from gimp_fast.pages.templates import get_template
from gimp_fast.runs import layout


@dataclass(frozen=True)
class Drawing:
    """A figure; ``name`` is its file stem, ``alt`` is for readers who cannot see it."""

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure


@dataclass(frozen=True)
class Tile:
    """A number that a page shows first; ``below`` says in a few words what it is made of."""

    title: str
    estimate: Estimate
    below: str = ""


@dataclass(frozen=True)
class CohortLine:
    """A cohort in a line: its name, how many patients, and what is asked of them."""

    name: str
    patients: int
    synthetic: bool
    fingerprint: str
    about: str

    @classmethod
    def of(cls, cohort: Cohort, about: str) -> CohortLine:
        return cls(cohort.name, len(cohort), cohort.synthetic, cohort.fingerprint, about)


@dataclass(frozen=True)
class Document:
    """Everything that the files of a table show.

    Attributes:
        name: of the table, on the command line.
        scope: splits, seeds and settings, in a few words.
        facts: what ``results.json`` holds.
        csv: the text of ``table.csv``.
        grids: heading -> table.
        drawings: makes the figures; called once, in the style of the package.
        notes: how the numbers are made, a paragraph each.
        run_lines: run folder, validation score, test score, seconds, of each run.
    """

    name: str
    title: str
    about: str
    cohorts: tuple[CohortLine, ...]
    scope: str
    facts: dict[str, Any]
    csv: str
    grids: dict[str, Grid]
    tiles: tuple[Tile, ...]
    drawings: Callable[[], Iterable[Drawing]]
    notes: Sequence[str]
    run_lines: Sequence[tuple[str, str, str, str]]

    @property
    def synthetic(self) -> bool:
        """Whether any of its patients are made up."""
        return any(cohort.synthetic for cohort in self.cohorts)


def write_document(document: Document, out: Path) -> Path:
    """Write all files of a table into a folder; returns the path of ``report.html``."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "results.json", document.facts, indent=1)
    write_text(out / "table.csv", document.csv)
    write_text(out / "table.md", _markdown(document))
    write_text(out / "table.tex", _latex(document))
    figures = _write_figures(document, out / "figures")
    template = get_template("experiment.html.j2", "gimp_fast.experiments")
    page = template.render(document=document, facts=document.facts, figures=figures)
    write_text(out / layout.REPORT, page)
    return out / layout.REPORT


def run_line(one: Finished, val: str, test: str) -> tuple[str, str, str, str]:
    """A line of :attr:`Document.run_lines`, given both scores in words."""
    return one.folder.name, val, test, f"{one.record.seconds:g}"


def _write_figures(document: Document, folder: Path) -> list[tuple[Drawing, str]]:
    """Write ``*.png`` and ``*.svg``; returns each figure with its SVG for the page."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("*.png"), *folder.glob("*.svg")]:
        old.unlink()  # figures of an earlier call would contradict this one's
    shown = []
    with style.rc():
        for drawing in document.drawings():
            stem = folder / drawing.name
            style.save(drawing.figure, stem)
            svg = stem.with_suffix(".svg").read_text(encoding="utf-8")
            shown.append((drawing, inline_svg(svg, drawing.name, drawing.alt)))
    return shown


def _markdown(document: Document) -> str:
    lines = [
        f"{safe_text.markdown(cohort.name)}, {cohort.patients} patients, "
        f"{safe_text.markdown(cohort.about)}."
        for cohort in document.cohorts
    ]
    if document.synthetic:
        lines.append("**Synthetic patients: the numbers say nothing about any disease.**")
    parts = [f"# {document.title}\n", f"{' '.join(lines)}\n", f"{document.about}\n"]
    for title, grid in document.grids.items():
        parts += [f"## {title}\n", markdown(grid)]
    parts += ["## How the numbers are made\n", "\n\n".join(document.notes) + "\n"]
    return "\n".join(parts)


def _latex(document: Document) -> str:
    kind = "Synthetic patients: " if document.synthetic else ""
    cohorts = "; ".join(f"{cohort.name}, {cohort.patients} patients" for cohort in document.cohorts)
    text = []
    for number, (title, grid) in enumerate(document.grids.items(), start=1):
        caption = f"{kind}{document.title}. {title}. {cohorts}."
        text += latex_tables(grid, caption, f"tab:{document.name}-{number}")
    return "\n".join(text)
