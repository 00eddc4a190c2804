"""Reads what ``heatmap`` left in a folder: the summary, and the record of each finished map.

The files may have been edited or come from someone else. They name further files, which must lie
in the folder: a report embeds them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from gimp_fast.errors import FaultError
from gimp_fast.files.paths import OUTSIDE
from gimp_fast.runs import layout
from gimp_fast.runs.records import read_object_or_empty

# Settings on which weights depend.
_WEIGHTS = ("weights", "attribution", "target")


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Map(_Record):
    folder: str
    files: dict[str, str]


class _SlideMap(_Map):
    slide_id: str


class _Attention(_Record):
    highest_times_even: float
    flat: bool


class _Patient(_Record):
    case_id: str
    attention: _Attention | None = None


class _PatientMaps(_Patient):
    slides: list[_SlideMap]
    genes: _Map | None = None


class _Summary(_Record):
    attribution: str = ""
    colours: str = ""
    settings: dict[str, Any] = {}
    patients: list[_PatientMaps] = []


class _CheckedKind(_Record):
    finding: str
    verdict: str


class _Check(_Record):
    settings: dict[str, Any]
    kinds: dict[str, _CheckedKind]


class _Finished(_Map):
    settings: dict[str, Any]
    patient: _Patient


def read_maps(folder: Path) -> dict[str, Any]:
    """The summary in a folder of maps; an empty one if it is missing, damaged, or no summary.

    Raises:
        FaultError: it names files outside the folder.
    """
    summary = _of_shape(folder / layout.MAPS, _Summary)
    for patient in summary.get("patients", []):
        for record in (*patient["slides"], patient.get("genes")):
            _check_inside(folder, record or {"folder": ".", "files": {}}, folder / layout.MAPS)
    return summary


def read_verdicts(folder: Path) -> list[tuple[str, str]]:
    """Finding and verdict of each kind that a check of the weights of these maps was of.

    None without a check, or after one of other weights than those of the maps.
    """
    check = _of_shape(folder / layout.FAITHFULNESS, _Check)
    made = _of_shape(folder / layout.MAPS, _Summary).get("settings", {})
    if not check or any(check["settings"].get(name) != made.get(name) for name in _WEIGHTS):
        return []
    return [(kind["finding"], kind["verdict"]) for kind in check["kinds"].values()]


def read_finished(file: Path, folder: Path) -> dict[str, Any]:
    """The record of one finished map below ``folder``; empty or FaultError as in ``read_maps``."""
    record = _of_shape(file, _Finished)
    if record:
        _check_inside(folder, record, file)
    return record


def _of_shape(file: Path, shape: type[BaseModel]) -> dict[str, Any]:
    try:
        record = read_object_or_empty(file)
        shape.model_validate(record)
    except (ValidationError, RecursionError):
        return {}
    return record


def _check_inside(folder: Path, record: dict[str, Any], source: Path) -> None:
    """FaultError if a file of the record is not below the folder, also through links."""
    root = folder.resolve()
    for name in ("", *record["files"].values()):
        try:
            inside = (folder / record["folder"] / name).resolve().is_relative_to(root)
        except (OSError, ValueError, RuntimeError):  # NUL, a name too long, links in a circle
            inside = False
        if not inside:
            found = f"the file {record['folder']!r} / {name!r}"
            expected = f"files inside {folder}; `gimp-fast heatmap --overwrite` writes it anew"
            raise FaultError.of(OUTSIDE, source, found[:300], expected)
