"""The files of a run that hold something of every patient, as arrays."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from gimp_fast.files.safe_text import guarded, unguarded

STAGES = ("pretrain", "finetune")
_NAMES = ("case_id", "split", "label")


@dataclass(frozen=True)
class CasePredictions:
    """``predictions.csv``: the predictions of n patients of validation and test.

    Attributes:
        classes: names of the K classes.
        case_id, split: (n,) unicode.
        label, predicted: (n,) int, places in ``classes``.
        probabilities: (n, K).
    """

    classes: tuple[str, ...]
    case_id: np.ndarray
    split: np.ndarray
    label: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray

    def __len__(self) -> int:
        return len(self.case_id)

    @property
    def hits(self) -> np.ndarray:
        """(n,) bool: whether the prediction is right."""
        return self.predicted == self.label

    def of(self, split: str) -> CasePredictions:
        """The patients of one part, ``"val"`` or ``"test"``."""
        rows, (_, *names) = self.split == split, self.__match_args__
        return CasePredictions(self.classes, *(getattr(self, name)[rows] for name in names))

    def known(self) -> CasePredictions:
        """The patients whose class is known; others have the label −1."""
        rows, (_, *names) = self.label >= 0, self.__match_args__
        return CasePredictions(self.classes, *(getattr(self, name)[rows] for name in names))

    def columns(self) -> dict[str, np.ndarray]:
        """Name -> column of the file, but for the patients' ids and parts."""
        # The last is that of the label −1.
        names = np.array([*map(guarded, self.classes), ""], dtype=object)
        columns = (names[self.label], names[self.predicted], *self.probabilities.T)
        return dict(zip(_columns(self.classes), columns, strict=True))

    def to_csv(self) -> str:
        """The text of the file."""
        cases = [guarded(case) for case in self.case_id.tolist()]
        columns = {"case_id": cases, "split": self.split, **self.columns()}
        return pd.DataFrame(columns).to_csv(index=False, float_format="%.6g", lineterminator="\n")

    @classmethod
    def read(cls, file: Path, classes: tuple[str, ...], prefix: str = "") -> CasePredictions:
        """Read the file; ValueError or csv.Error says what is wrong in it.

        With a prefix, which their columns have beside those of other targets, a label may be empty.
        """
        columns = ["case_id", "split", *(prefix + name for name in _columns(classes))]
        rows = [[*map(unguarded, row[:4]), *row[4:]] for row in rows_of_columns(file, columns)]
        places = {name: place for place, name in enumerate(classes)}
        may_lack = {""} if prefix else set()
        for column, name, more in ((2, "label", may_lack), (3, "prediction", set())):
            if unknown := sorted({row[column] for row in rows} - {*classes, *more}):
                expected = f"expected classes {list(classes)}"
                raise ValueError(f"column {name}: found {unknown}; {expected}")
        probabilities = np.array([row[4:] for row in rows], str).astype(np.float64)
        if not np.isfinite(probabilities).all():
            raise ValueError("a probability is not finite")
        return cls(
            classes,
            case_id=np.array([row[0] for row in rows], str),
            split=np.array([row[1] for row in rows], str),
            label=np.array([places.get(row[2], -1) for row in rows], np.int64),
            predicted=np.array([places[row[3]] for row in rows], np.int64),
            probabilities=probabilities.reshape(-1, len(classes)),
        )


AS_DRAWN = "start"


@dataclass(frozen=True)
class Embeddings:
    """``embeddings.npz``: what the model classifies of n patients (CLS_pat in GiMP).

    Attributes:
        case_id, split, label: (n,) unicode.
        stages: name of a stage -> (n, d) float array; a stage that was not run is absent.
            ``AS_DRAWN`` is the model before any stage, if it was pre-trained.
    """

    case_id: np.ndarray
    split: np.ndarray
    label: np.ndarray
    stages: dict[str, np.ndarray]

    def arrays(self) -> dict[str, np.ndarray]:
        """Name in the archive -> array."""
        return {name: getattr(self, name) for name in _NAMES} | self.stages

    @classmethod
    def read(cls, file: Path) -> Embeddings:
        """Read the file; ValueError or zipfile.BadZipFile says what is wrong in it."""
        if not zipfile.is_zipfile(file):
            file.open("rb").close()  # a missing file is reported as missing
            raise ValueError("found no npz archive")
        with np.load(file, allow_pickle=False) as archive:
            if absent := [key for key in _NAMES if key not in archive]:
                raise ValueError(f"arrays {absent} are missing; found {archive.files}")
            names = {key: archive[key].astype(str) for key in _NAMES}
            stages = {key: archive[key] for key in (AS_DRAWN, *STAGES) if key in archive}
        n = len(names["case_id"])
        for key, array in {**names, **stages}.items():
            dimensions = 2 if key in stages else 1
            if array.ndim != dimensions or len(array) != n:
                raise ValueError(f"array {key} has shape {array.shape}; expected {n} rows")
        return cls(**names, stages=stages)


def _columns(classes: Sequence[str]) -> list[str]:
    return ["label", "prediction", *(f"prob_{name}" for name in classes)]


def rows_of_columns(file: Path, columns: Sequence[str]) -> list[list[str]]:
    """The cells of these columns, row by row."""
    with file.open(encoding="utf-8", newline="") as stream:
        lines = csv.reader(stream, strict=True)
        header = next(lines, [])
        if absent := [name for name in columns if name not in header]:
            raise ValueError(f"columns {absent} are missing; found {header}")
        places = [header.index(name) for name in columns]
        rows = []
        for line in filter(None, lines):
            if len(line) != len(header):
                found = f"line {lines.line_num}: found {len(line)} cells"
                raise ValueError(f"{found}; expected {len(header)}")
            rows.append([line[place] for place in places])
    return rows
