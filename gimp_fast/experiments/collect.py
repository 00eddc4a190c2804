"""Reads what runs left: predictions as arrays, and vectors of patients."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gimp_fast.errors import GimpError
from gimp_fast.evaluation.comparison import Predictions
from gimp_fast.experiments.plan import DONE, PREDICTIONS, Run

PARTS = ("val", "test")


@dataclass(frozen=True)
class Finished:
    """A run that is done.

    Attributes:
        record: what ``run.json`` holds.
        rows: part -> (case id, label, prediction, probabilities) of each of its patients.
    """

    run: Run
    folder: Path
    record: dict[str, Any]
    rows: dict[str, list[tuple[str, int, int, list[float]]]]


def read_run(run: Run, folder: Path, classes: Sequence[str]) -> Finished:
    """Raises: GimpError if a file is damaged; the message names it."""
    record_file, predictions_file = folder / DONE, folder / PREDICTIONS
    try:
        record = json.loads(record_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GimpError(f"{record_file}: cannot be read ({error})") from error
    if record.get("digest") != run.digest:
        raise GimpError(f"{record_file}: found another run; remove {folder} and run again")
    rows: dict[str, list] = {part: [] for part in PARTS}
    place = {name: number for number, name in enumerate(classes)}
    try:
        with predictions_file.open(encoding="utf-8", newline="") as stream:
            for line in csv.DictReader(stream, strict=True):
                probabilities = [float(line[f"prob_{name}"]) for name in classes]
                label, called = place[line["label"]], place[line["prediction"]]
                rows[line["split"]].append((line["case_id"], label, called, probabilities))
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise GimpError(
            f"{predictions_file}: cannot be read ({type(error).__name__}: {error}); "
            f"remove {folder} and run again"
        ) from error
    return Finished(run, folder, record, rows)


def predictions_of(
    finished: Sequence[Finished], part: str, patients: Sequence[str], splits: Sequence[str]
) -> Predictions:
    """All predictions of some runs on one part, as arrays.

    Args:
        finished: one run or more.
        part: ``"val"`` or ``"test"``.
        patients, splits: their places are the numbers in the arrays.
    """
    patient_of = {case: number for number, case in enumerate(patients)}
    columns: list[list] = [[] for _ in range(6)]
    for number, one in enumerate(finished):
        for case, label, called, probabilities in one.rows[part]:
            values = (patient_of[case], splits.index(one.run.split), number, label, called)
            for column, value in zip(columns, (*values, probabilities), strict=True):
                column.append(value)
    *numbers, probabilities = columns
    return Predictions(*(np.array(c, int) for c in numbers), np.array(probabilities, float))


@dataclass(frozen=True)
class Vectors:
    """Patients after pre-training.

    Attributes:
        case, part, label: (n,) unicode.
        vectors: (n, d).
    """

    case: np.ndarray
    part: np.ndarray
    label: np.ndarray
    vectors: np.ndarray


def pretrained_vectors(finished: Finished, width: int | None = None) -> Vectors:
    """CLS_pat of a run after pre-training.

    Args:
        width: take this many columns from the left, which are CLS_img; None for all.

    Raises:
        GimpError: the file is damaged or has no vectors of that stage.
    """
    file = finished.folder / "embeddings.npz"
    try:
        with np.load(file, allow_pickle=False) as archive:
            names = (archive[key].astype(str) for key in ("case_id", "split", "label"))
            return Vectors(*names, archive["pretrain"].astype(np.float64)[:, :width])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise GimpError(f"{file}: cannot be read ({error})") from error
