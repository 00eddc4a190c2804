"""What a cohort knows of its patients besides their labels: columns of ``targets.csv``.

A target has one column, named after it, or for survival two, ``NAME.time`` and ``NAME.event``.
Cells are empty for patients of whom it is not known. ``cohort.json`` says what each target is.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gimp_fast.data.cohort_files import Rows
from gimp_fast.errors import counted

TARGETS = "targets.csv"
KINDS = ("class", "survival", "regression")


@dataclass(frozen=True)
class CohortTarget:
    """One target of a cohort.

    Attributes:
        kind: one of ``KINDS``.
        unit: of survival times, such as ``"days"``; empty for other kinds.
        classes: their names, sorted; empty for other kinds.
        values: case id -> place of the class, (time, event) or number, where it is known.
    """

    name: str
    kind: str
    values: Mapping[str, Any]
    unit: str = ""
    classes: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Of ``targets.csv``."""
        if self.kind == "survival":
            return f"{self.name}.time", f"{self.name}.event"
        return (self.name,)

    def of(self, case_ids: Collection[str]) -> CohortTarget:
        """The target of some patients."""
        chosen = set(case_ids)
        return replace(self, values={c: v for c, v in self.values.items() if c in chosen})

    def truth(self, case_ids: Iterable[str]) -> np.ndarray:
        """(n,) int64 classes, (n, 2) float64 times and events, or (n,) float64 numbers.

        KeyError for a patient of whom it is not known.
        """
        dtype = np.int64 if self.kind == "class" else np.float64
        found = np.array([self.values[case] for case in case_ids], dtype)
        return found.reshape(-1, 2) if self.kind == "survival" else found

    def cells(self, case_id: str) -> dict[str, str]:
        """The patient's cells of ``targets.csv``."""
        if case_id not in self.values:
            return dict.fromkeys(self.columns, "")
        value = self.values[case_id]
        if self.kind == "class":
            return {self.name: self.classes[value]}
        if self.kind == "survival":
            time, event = value
            return dict(zip(self.columns, (repr(float(time)), str(int(event))), strict=True))
        return {self.name: repr(float(value))}

    def words(self, case_id: str) -> str | None:
        """The patient's truth for a reader, ``421 days, event``; None where it is not known."""
        if case_id not in self.values:
            return None
        value = self.values[case_id]
        if self.kind == "class":
            return self.classes[value]
        if self.kind == "survival":
            time = f"{float(value[0]):g} {self.unit}".rstrip()
            return f"{time}, {'event' if value[1] else 'censored'}"
        return f"{float(value):.4g}"

    def facts(self) -> dict[str, Any]:
        """Its description in ``cohort.json``."""
        return {"kind": self.kind, "unit": self.unit, "classes": list(self.classes)}


def target_rows(targets: Sequence[CohortTarget], case_ids: Iterable[str]) -> Rows:
    """The rows of ``targets.csv``."""
    rows = []
    for case in case_ids:
        cells = [target.cells(case) for target in targets]
        rows.append({"case_id": case} | {key: cell for of in cells for key, cell in of.items()})
    return rows


def targets_of(facts: Mapping[str, Mapping[str, Any]], rows: Rows) -> dict[str, CohortTarget]:
    """Name -> target, from ``cohort.json`` and the rows of ``targets.csv``.

    Raises:
        KeyError, TypeError, ValueError: they do not fit each other.
    """
    targets = {}
    for name, fact in facts.items():
        if fact["kind"] not in KINDS:
            raise ValueError(f"target '{name}' is of the kind {fact['kind']!r}")
        empty = CohortTarget(name, fact["kind"], {}, fact["unit"], tuple(fact["classes"]))
        known = [row for row in rows if all(row[column] for column in empty.columns)]
        values = {row["case_id"]: _value(empty, row) for row in known}
        targets[name] = CohortTarget(name, empty.kind, values, empty.unit, empty.classes)
    return targets


def _value(target: CohortTarget, row: Mapping[str, str]) -> Any:
    cells = [row[column] for column in target.columns]
    if target.kind == "class":
        return target.classes.index(cells[0])
    if target.kind == "survival":
        return float(cells[0]), bool(int(cells[1]))
    return float(cells[0])


def target_text(target: CohortTarget) -> str:
    """A line on the target: its patients, and how many of them had the event or have a class."""
    known = f"{target.name}: {counted(len(target.values), 'patient')}"
    if target.kind == "survival":
        events = sum(event for _, event in target.values.values())
        median = statistics.median(time for time, _ in target.values.values())
        return f"{known}, {counted(events, 'event')}, median time {median:g} {target.unit}"
    if target.kind == "class":
        counts = Counter(target.values.values())
        named = ", ".join(f"{counts[place]} {name}" for place, name in enumerate(target.classes))
        return f"{known}, {named}"
    numbers = list(target.values.values())
    return f"{known}, {min(numbers):g} to {max(numbers):g}, median {statistics.median(numbers):g}"
