"""The page's table of cases, and the heatmaps in the run's folder."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any
from urllib.parse import quote

from gimp_fast.runs import layout
from gimp_fast.runs.map_records import read_maps
from gimp_fast.runs.records import Run

EMBEDDED = 6  # maps that are shown in the page; all others are linked
CLASS_COLUMNS = 4  # with more classes, not each has a column
PRINTED = 25  # rows on paper; mistakes come first
# Where the summary does not say.
_COLOURS = "percentiles among the patches of a patient, yellow is highest"
_LARGEST = 400_000  # bytes of an embedded picture


def case_section(run: Run) -> dict[str, Any]:
    """What the page's templates need for the table of cases and for the heatmaps."""
    summary = read_maps(run.path / layout.HEATMAPS)
    patients = {record["case_id"]: record for record in summary.get("patients", [])}
    cases = _cases(run, patients)
    test = [case for case in cases if case["part"] == "test"]
    classes = run.metrics.cohort.classes
    titles = [f"P({name})" for name in classes]
    return {
        "cases": cases,
        "printed_cases": PRINTED,
        "parts": sorted({case["part"] for case in cases}),
        "num_test": len(test),
        "num_wrong": sum(not case["right"] for case in test),
        "any_maps": any(case["maps"] for case in cases),
        "probability_titles": ["P(true class)", "P(predicted)"] if _is_brief(classes) else titles,
        "pictures": list(islice(_pictures(run, cases, patients), EMBEDDED)),
        "attribution": summary.get("attribution", ""),
        "colours": summary.get("colours") or _COLOURS,
    }


def _is_brief(classes: Sequence[str]) -> bool:
    """Whether the table shows the two probabilities that matter instead of all."""
    return len(classes) > CLASS_COLUMNS


def _cases(run: Run, patients: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Predicted cases: the test set before validation, mistakes first, the most confident first."""
    predictions, cases = run.predictions, []
    classes, every = predictions.classes, range(len(predictions.classes))
    for row, case_id in enumerate(predictions.case_id.tolist()):
        label, predicted = predictions.label[row], predictions.predicted[row]
        probabilities = predictions.probabilities[row].tolist()
        columns = (label, predicted) if _is_brief(classes) else every
        case = {
            "case_id": case_id,
            "part": str(predictions.split[row]),
            "label": classes[label],
            "prediction": classes[predicted],
            "right": bool(label == predicted),
            "probabilities": [probabilities[column] for column in columns],
            "confidence": probabilities[predicted],
            "maps": _links(patients.get(case_id, {})),
        }
        cases.append(case)
    return sorted(
        cases, key=lambda c: (c["part"] != "test", c["right"], -c["confidence"], c["case_id"])
    )


def links_of_cases(run: Run) -> dict[str, list[dict[str, str]]]:
    """case id -> the drawings of patients who have any."""
    summary = read_maps(run.path / layout.HEATMAPS)
    return {record["case_id"]: _links(record) for record in summary.get("patients", [])}


def _pictures(
    run: Run, cases: list[dict[str, Any]], patients: dict[str, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """The maps of the cases that have any, small enough to be embedded."""
    for case in cases:
        patient = patients.get(case["case_id"], {})
        attention = patient.get("attention") or {"flat": False}
        for slide in patient.get("slides", []):
            files, folder = slide["files"], slide["folder"]
            file = run.path / layout.HEATMAPS / folder / files.get("thumbnail", "")
            if "overlay" in files and file.is_file() and file.stat().st_size <= _LARGEST:
                data = base64.b64encode(file.read_bytes()).decode("ascii")
                link = _link(slide["slide_id"], folder, files["overlay"])
                picture = {"link": link, "data": f"data:image/png;base64,{data}"}
                yield picture | {"case": case, "attention": attention}


def _links(patient: dict[str, Any]) -> list[dict[str, str]]:
    """The drawings of a patient, if there are any."""
    slides = [slide for slide in patient.get("slides", []) if "overlay" in slide["files"]]
    links = [_link(s["slide_id"], s["folder"], s["files"]["overlay"]) for s in slides]
    genes = patient.get("genes")
    if genes and "figure" in genes["files"]:
        links.append(_link("genes", genes["folder"], genes["files"]["figure"]))
    return links


def _link(text: str, folder: str, file: str) -> dict[str, str]:
    """A file below the run's folder, with its relative, quoted address."""
    return {"text": text, "href": quote(f"{layout.HEATMAPS}/{folder}/{file}")}
