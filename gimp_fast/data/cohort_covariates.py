"""Clinical covariates of a cohort: columns of ``covariates.csv``, described in ``cohort.json``."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gimp_fast.data.cohort_files import Rows
from gimp_fast.errors import counted

COVARIATES = "covariates.csv"
NUMERIC, CATEGORICAL = "numeric", "categorical"


@dataclass(frozen=True)
class CohortCovariate:
    """One covariate of a cohort.

    Attributes:
        kind: ``"numeric"`` or ``"categorical"``.
        levels: of a categorical one, sorted; else empty.
        values: case id -> a number or a level, where it is known.
    """

    name: str
    kind: str
    levels: tuple[str, ...]
    values: Mapping[str, float | str]

    def of(self, case_ids: Collection[str]) -> CohortCovariate:
        """The covariate of some patients."""
        chosen = set(case_ids)
        return replace(self, values={c: v for c, v in self.values.items() if c in chosen})

    def cell(self, case_id: str) -> str:
        """The patient's cell of ``covariates.csv``."""
        value = self.values.get(case_id, "")
        return value if isinstance(value, str) else repr(value)

    def facts(self) -> dict[str, Any]:
        """Its description in ``cohort.json``."""
        return {"kind": self.kind, "levels": list(self.levels)}


def covariate_rows(covariates: Sequence[CohortCovariate], case_ids: Iterable[str]) -> Rows:
    """The rows of ``covariates.csv``."""
    return [
        {"case_id": case} | {covariate.name: covariate.cell(case) for covariate in covariates}
        for case in case_ids
    ]


def covariates_of(facts: Mapping[str, Mapping[str, Any]], rows: Rows) -> dict[str, CohortCovariate]:
    """Name -> covariate, from ``cohort.json`` and the rows of ``covariates.csv``.

    Raises:
        KeyError, TypeError, ValueError: they do not fit each other.
    """
    found = {}
    for name, fact in facts.items():
        kind, levels = fact["kind"], tuple(fact["levels"])
        if kind not in (NUMERIC, CATEGORICAL):
            raise ValueError(f"covariate '{name}' is of the kind {kind!r}")
        cells = {row["case_id"]: row[name] for row in rows if row[name]}
        values: dict[str, float | str] = dict(cells)
        if kind == NUMERIC:
            values = {case: float(cell) for case, cell in cells.items()}
        elif unknown := set(cells.values()) - set(levels):
            raise ValueError(f"covariate '{name}' has the level {min(unknown)!r}")
        found[name] = CohortCovariate(name, kind, levels, values)
    return found


def covariate_text(covariate: CohortCovariate) -> str:
    """A line on the covariate: how many patients have it, and its range or its levels."""
    known = f"{covariate.name}: {counted(len(covariate.values), 'patient')}"
    if covariate.kind == CATEGORICAL:
        counts = Counter(covariate.values.values())
        named = ", ".join(f"{counts[level]} {level}" for level in covariate.levels)
        return f"{known}, {named}"
    numbers = list(covariate.values.values())
    return f"{known}, {min(numbers):g} to {max(numbers):g}, median {statistics.median(numbers):g}"
