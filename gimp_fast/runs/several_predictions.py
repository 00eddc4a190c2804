"""``predictions.csv`` of several targets: the columns of each, named after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from gimp_fast.files.safe_text import guarded
from gimp_fast.runs.outcome_predictions import OutcomePredictions
from gimp_fast.runs.patient_arrays import CasePredictions

OneTarget = CasePredictions | OutcomePredictions


def prefix(target: str) -> str:
    """What the columns of a target begin with: ``os_``."""
    return f"{target}_"


@dataclass(frozen=True)
class SeveralPredictions:
    """Predictions of n patients of validation and test, who have a value of some of the targets.

    Attributes:
        of_all: name of a target -> its predictions of all these patients, in one order. The truth
            is −1 for a class and NaN for a number where it is not known.
    """

    of_all: Mapping[str, OneTarget]

    def __len__(self) -> int:
        return len(self.case_id)

    @property
    def case_id(self) -> np.ndarray:
        """(n,) unicode."""
        return next(iter(self.of_all.values())).case_id

    @property
    def split(self) -> np.ndarray:
        """(n,) unicode."""
        return next(iter(self.of_all.values())).split

    @cached_property
    def known(self) -> dict[str, OneTarget]:
        """Name of a target -> its predictions of the patients whose value is known."""
        return {name: found.known() for name, found in self.of_all.items()}

    def columns(self) -> dict[str, np.ndarray]:
        """Name -> column, in the order of the file, without the patients' ids and parts."""
        return {
            prefix(name) + column: values
            for name, found in self.of_all.items()
            for column, values in found.columns().items()
        }

    def to_csv(self) -> str:
        """The text of the file."""
        cases = [guarded(case) for case in self.case_id.tolist()]
        table = pd.DataFrame({"case_id": cases, "split": self.split, **self.columns()})
        return table.to_csv(index=False, float_format="%.9g", lineterminator="\n")

    @classmethod
    def read(
        cls, file: Path, readers: Mapping[str, Callable[[Path, str], OneTarget]]
    ) -> SeveralPredictions:
        """Read the file; ValueError or csv.Error says what is wrong in it.

        ``readers`` maps a target to what reads its columns, which begin with a prefix.
        """
        return cls({name: read(file, prefix(name)) for name, read in readers.items()})
