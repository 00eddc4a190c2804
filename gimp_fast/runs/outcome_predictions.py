"""``predictions.csv`` of a target that is no class: truth and predictions as columns of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from gimp_fast.files.safe_text import guarded, unguarded
from gimp_fast.runs.patient_arrays import rows_of_columns


@dataclass(frozen=True)
class OutcomePredictions:
    """Predictions of n patients of validation and test.

    Attributes:
        case_id, split: (n,) unicode.
        truth, predicted: name of a column -> (n,) float64.
    """

    case_id: np.ndarray
    split: np.ndarray
    truth: dict[str, np.ndarray]
    predicted: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.case_id)

    def of(self, split: str) -> OutcomePredictions:
        """The patients of one part, ``"val"`` or ``"test"``."""
        return self._rows(self.split == split)

    def known(self) -> OutcomePredictions:
        """The patients whose truth is known; that of others is NaN."""
        return self._rows(~np.isnan(next(iter(self.truth.values()))))

    def _rows(self, rows: np.ndarray) -> OutcomePredictions:
        columns = ({name: values[rows] for name, values in some.items()}
                   for some in (self.truth, self.predicted))  # fmt: skip
        return OutcomePredictions(self.case_id[rows], self.split[rows], *columns)

    def columns(self) -> dict[str, np.ndarray]:
        """Name -> column of the file, but for the patients' ids and parts."""
        return {**self.truth, **self.predicted}

    def to_csv(self) -> str:
        """The text of the file."""
        cases = [guarded(case) for case in self.case_id.tolist()]
        columns = {"case_id": cases, "split": self.split, **self.columns()}
        return pd.DataFrame(columns).to_csv(index=False, float_format="%.9g", lineterminator="\n")

    @classmethod
    def read(
        cls, file: Path, truth: Sequence[str], predicted: Sequence[str], prefix: str = ""
    ) -> OutcomePredictions:
        """Read the file; ValueError or csv.Error says what is wrong in it.

        With a prefix, which their columns have beside those of other targets, the truth may be
        empty.
        """
        names = [prefix + name for name in (*truth, *predicted)]
        rows = rows_of_columns(file, ["case_id", "split", *names])
        cells = np.array([row[2:] for row in rows], str).reshape(-1, len(names))
        # Nothing is known of the truth, or all of it.
        lacking = (cells[:, : len(truth)] == "").all(1) & bool(prefix)
        cells[lacking, : len(truth)] = "0"
        numbers = cells.astype(np.float64)
        if not np.isfinite(numbers).all():
            raise ValueError("a number is not finite")
        numbers[lacking, : len(truth)] = np.nan
        columns = dict(zip((*truth, *predicted), numbers.T, strict=True))
        return cls(
            np.array([unguarded(row[0]) for row in rows], str),
            np.array([row[1] for row in rows], str),
            {name: columns[name] for name in truth},
            {name: columns[name] for name in predicted},
        )
