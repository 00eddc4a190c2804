"""The page's table of cases, and the heatmaps that lie in the run's folder."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gimp_fast.runs.records import RunFolder

FOLDER, SUMMARY = "heatmaps", "heatmaps.json"
EMBEDDED = 6  # maps that are shown in the page; all others are linked
_LARGEST = 400_000  # bytes of an embedded picture
CLASS_COLUMNS = 4  # classes up to which each has a column


@dataclass(frozen=True)
class Link:
    """A file below the run's folder: its text and its relative, quoted address."""

    text: str
    href: str


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        probabilities: those of the columns that the table has.
        confidence: probability of the predicted class.
        maps: drawings of the patient, if there are any.
    """

    case_id: str
    part: str
    label: str
    prediction: str
    right: bool
    probabilities: list[float]
    confidence: float
    maps: list[Link]


@dataclass(frozen=True)
class Picture:
    """A small map in the page."""

    case: Case
    link: Link
    data: str


def probability_titles(run: RunFolder) -> list[str]:
    """Titles of the probability columns: each class, or with many the two that matter."""
    classes = run.metrics.cohort.classes
    if len(classes) <= CLASS_COLUMNS:
        return [f"P({name})" for name in classes]
    return ["P(true class)", "P(predicted)"]


def cases_of(run: RunFolder) -> list[Case]:
    """Predicted cases: the test set before validation, mistakes first, the most confident first."""
    classes, maps = run.metrics.cohort.classes, _maps(run.path)
    cases = []
    for row in run.predictions.to_dict("records"):
        columns = [f"prob_{name}" for name in classes]
        if len(classes) > CLASS_COLUMNS:
            columns = [f"prob_{row['label']}", f"prob_{row['prediction']}"]
        cases.append(
            Case(
                case_id=row["case_id"],
                part=row["split"],
                label=row["label"],
                prediction=row["prediction"],
                right=row["label"] == row["prediction"],
                probabilities=[row[name] for name in columns],
                confidence=row[f"prob_{row['prediction']}"],
                maps=_links(maps.get(row["case_id"])),
            )
        )
    return sorted(cases, key=lambda c: (c.part != "test", c.right, -c.confidence, c.case_id))


def pictures_of(run: RunFolder, cases: list[Case]) -> list[Picture]:
    """The maps of the first few cases that have any, to be embedded."""
    maps, pictures = _maps(run.path), []
    for case in cases:
        for slide in maps.get(case.case_id, {}).get("slides", []):
            files, folder = slide["files"], slide["folder"]
            file = run.path / FOLDER / folder / files.get("thumbnail", "")
            if len(pictures) < EMBEDDED and file.is_file() and file.stat().st_size <= _LARGEST:
                data = base64.b64encode(file.read_bytes()).decode("ascii")
                link = Link(slide["slide_id"], _address(folder, files["overlay"]))
                pictures.append(Picture(case, link, f"data:image/png;base64,{data}"))
    return pictures


def attribution_of(run: RunFolder) -> str:
    """What the maps show, in words; empty without maps."""
    return str(_summary(run.path).get("attribution", ""))


def _links(patient: dict[str, Any] | None) -> list[Link]:
    links = []
    for slide in (patient or {}).get("slides", []):
        if "overlay" in slide["files"]:
            links.append(Link(slide["slide_id"], _address(slide["folder"], "overlay.png")))
    genes = (patient or {}).get("genes")
    if genes:
        links.append(Link("genes", _address(genes["folder"], genes["files"]["figure"])))
    return links


def _address(folder: str, file: str) -> str:
    return quote(f"{FOLDER}/{folder}/{file}")


def _maps(run: Path) -> dict[str, dict[str, Any]]:
    return {record["case_id"]: record for record in _summary(run).get("patients", [])}


def _summary(run: Path) -> dict[str, Any]:
    """What `gimp-fast heatmap` left; nothing where it left nothing, or the file is damaged."""
    try:
        summary = json.loads((run / FOLDER / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}
