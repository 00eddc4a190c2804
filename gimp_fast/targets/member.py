"""One of several targets: its columns among theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from gimp_fast.targets.base import Target

LABEL, PREDICTION = "label", "prediction"  # columns of classes


@dataclass(frozen=True)
class Member:
    """One of several targets.

    Attributes:
        name: of the target; of the labels, the way to learn them, such as ``"classification"``.
        target: itself.
        classes: their names; empty for a target of another kind.
        of_labels: whether its truth is the labels of the cohort.
        weight: of its loss among those of the others; above 0.
    """

    name: str
    target: Target
    classes: tuple[str, ...] = ()
    of_labels: bool = False
    weight: float = 1.0

    @property
    def asked(self) -> str | None:
        """What a cohort is asked for its truth: the target of this name, or None for labels."""
        return None if self.of_labels else self.name

    @property
    def num_outputs(self) -> int:
        return len(self.classes) or self.target.num_outputs

    @property
    def num_predictions(self) -> int:
        return len(self.classes) or self.target.num_predictions

    @property
    def truth_columns(self) -> tuple[str, ...]:
        return (LABEL,) if self.classes else self.target.truth_columns

    @property
    def prediction_columns(self) -> tuple[str, ...]:
        """Columns of numbers: of classes, the probability of each."""
        if self.classes:
            return tuple(f"prob_{name}" for name in self.classes)
        return self.target.prediction_columns

    def prefixed(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Names of its columns in a table of several targets: ``os_risk``."""
        return tuple(f"{self.name}_{column}" for column in columns)

    def facts(self) -> dict[str, Any]:
        """What a checkpoint says of it."""
        facts = {"name": self.name, "classes": list(self.classes), "of_labels": self.of_labels}
        return facts | self.target.facts()

    def typed(self, truth: Any) -> Any:
        """Its columns of the truth, (n, ·) float64, as its target takes them; all are known."""
        if self.classes:
            place = truth[:, 0]
            return place.long() if isinstance(place, Tensor) else place.astype(np.int64)
        return truth if len(self.truth_columns) > 1 else truth[:, 0]


def check_columns(members: Sequence[Member]) -> None:
    """ValueError for a name that two columns of a table would have."""
    seen: dict[str, str] = {}
    for member in members:
        more = (PREDICTION,) if member.classes else ()
        for column in member.prefixed((*member.truth_columns, *member.prediction_columns, *more)):
            if column in seen:
                raise ValueError(
                    f"found '{seen[column]}' and '{member.name}', which both would have a column "
                    f"'{column}'; expected targets whose names do not make one"
                )
            seen[column] = member.name
