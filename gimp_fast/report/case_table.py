"""The page's table of cases, and the heatmaps in the run's folder."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from gimp_fast.runs import layout
from gimp_fast.runs.records import Run, read_object_or_empty

EMBEDDED = 6  # maps that are shown in the page; all others are linked
CLASS_COLUMNS = 4  # with more classes, not each has a column
_LARGEST = 400_000  # bytes of an embedded picture


@dataclass(frozen=True)
class Link:
    """A file below the run's folder: its text and its relative, quoted address."""

    text: str
    href: str


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        probabilities: one for each probability column of the table.
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


def case_section(run: Run) -> dict[str, Any]:
    """What the page's templates need for the table of cases and for the heatmaps."""
    summary = read_object_or_empty(run.path / layout.HEATMAPS / layout.MAPS)
    patients = {record["case_id"]: record for record in summary.get("patients", [])}
    cases = _cases(run, patients)
    test = [case for case in cases if case.part == "test"]
    return {
        "cases": cases,
        "parts": sorted({case.part for case in cases}),
        "num_test": len(test),
        "num_wrong": sum(not case.right for case in test),
        "any_maps": any(case.maps for case in cases),
        "probability_titles": _probability_titles(run.metrics.cohort.classes),
        "pictures": _pictures(run, cases, patients),
        "attribution": str(summary.get("attribution", "")),
    }


def _probability_titles(classes: tuple[str, ...]) -> list[str]:
    """Titles of the probability columns: each class, or with many the two that matter."""
    if len(classes) <= CLASS_COLUMNS:
        return [f"P({name})" for name in classes]
    return ["P(true class)", "P(predicted)"]


def _cases(run: Run, patients: dict[str, dict[str, Any]]) -> list[Case]:
    """Predicted cases: the test set before validation, mistakes first, the most confident first."""
    predictions, cases = run.predictions, []
    classes, every = predictions.classes, range(len(predictions.classes))
    for row, case_id in enumerate(predictions.case_id.tolist()):
        label, predicted = predictions.label[row], predictions.predicted[row]
        probabilities = predictions.probabilities[row].tolist()
        columns = every if len(classes) <= CLASS_COLUMNS else (label, predicted)
        case = Case(
            case_id=case_id,
            part=str(predictions.split[row]),
            label=classes[label],
            prediction=classes[predicted],
            right=bool(label == predicted),
            probabilities=[probabilities[column] for column in columns],
            confidence=probabilities[predicted],
            maps=_links(patients.get(case_id, {})),
        )
        cases.append(case)
    return sorted(cases, key=lambda c: (c.part != "test", c.right, -c.confidence, c.case_id))


def _pictures(run: Run, cases: list[Case], patients: dict[str, dict[str, Any]]) -> list[Picture]:
    """The maps of the first few cases that have any, to be embedded."""
    pictures: list[Picture] = []
    for case in cases:
        for slide in patients.get(case.case_id, {}).get("slides", []):
            files, folder = slide["files"], slide["folder"]
            file = run.path / layout.HEATMAPS / folder / files.get("thumbnail", "")
            if len(pictures) < EMBEDDED and file.is_file() and file.stat().st_size <= _LARGEST:
                data = base64.b64encode(file.read_bytes()).decode("ascii")
                link = Link(slide["slide_id"], _address(folder, files["overlay"]))
                pictures.append(Picture(case, link, f"data:image/png;base64,{data}"))
    return pictures


def _links(patient: dict[str, Any]) -> list[Link]:
    links = [
        Link(slide["slide_id"], _address(slide["folder"], slide["files"]["overlay"]))
        for slide in patient.get("slides", [])
        if "overlay" in slide["files"]
    ]
    genes = patient.get("genes")
    if genes:
        links.append(Link("genes", _address(genes["folder"], genes["files"]["figure"])))
    return links


def _address(folder: str, file: str) -> str:
    return quote(f"{layout.HEATMAPS}/{folder}/{file}")
