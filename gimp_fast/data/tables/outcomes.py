"""Outcomes of patients from a clinical table: classes, survival times and numbers.

``read_outcomes`` reads several targets of one table. A patient without a value of one target keeps
the others. What is wrong is a fault; what was left out is a note; what may be wrong is a caution.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from gimp_fast.data.tables.clinical import (
    Column,
    Known,
    by_patient,
    listed,
    read_columns,
    read_numbers,
)
from gimp_fast.data.tables.events import read_events
from gimp_fast.data.tables.target_spec import CLASS, REGRESSION, SURVIVAL, TargetSpec
from gimp_fast.data.tables.times import read_unit, unit_caution
from gimp_fast.errors import Faults, Read, counted
from gimp_fast.files.table import Table

T = TypeVar("T")

__all__ = ["Outcome", "TargetSpec", "TargetValues", "read_outcomes"]

_SAME = 0.9  # share of the patients with one number, above which there is little to learn


@dataclass(frozen=True)
class Outcome:
    """Time to the event, or to the last time that the patient was known to be without it."""

    time: float
    event: bool


@dataclass(frozen=True)
class TargetValues:
    """A target's values, and what a user should know of them.

    Attributes:
        unit: of survival times, which stay as the table has them; else empty.
        values: patient -> a class, an ``Outcome`` or a number, sorted by patient; those without
            a value are not there.
        notes: what was left out or replaced, in sentences.
        cautions: what may be wrong, in sentences.
    """

    name: str
    kind: str
    columns: tuple[str, ...]
    unit: str
    values: dict[str, str | Outcome | float]
    notes: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()


def read_outcomes(table: Table, specs: Sequence[TargetSpec]) -> Read[tuple[TargetValues, ...]]:
    """The values of each target, in the order asked for.

    Args:
        table: of patients or slides; a patient's rows must agree where they have a value.
        specs: the targets.

    Returns:
        The targets whose columns could be read, with every fault: a missing column, text in place
        of a number, an unknown coding of events or unit of times, negative times, times of zero
        unless the target says what becomes of them, targets without an event or with one class, …
    """
    faults = Faults()
    for name, count in Counter(spec.name for spec in specs).items():
        if count > 1:
            found = f"{count} targets called '{name}'"
            faults.add("duplicate-target", table.path, found, "another name for each")
    rows = read_columns(table, [name for spec in specs for name in spec.columns], faults)
    found = []
    for spec in specs:
        columns = [rows.columns[name] for name in spec.columns if name in rows.columns]
        if rows.cases and len(columns) == len(spec.columns):
            target = _Target(spec, columns, len(rows.cases))
            found.append(target.read())
            faults.items += target.faults.items
    return faults.read(tuple(found))


@dataclass
class _Target:
    """One target while it is read."""

    spec: TargetSpec
    columns: list[Column]
    patients: int  # of the table
    faults: Faults = field(default_factory=Faults)
    notes: list[str] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)
    unit: str = ""

    def read(self) -> TargetValues:
        read = {CLASS: self._classes, SURVIVAL: self._survival, REGRESSION: self._regression}
        for column in self.columns:
            self.notes += column.notes()
        values = read[self.spec.kind]()
        if not values and not self.faults.items:
            found = f"no patient with {'both values' if self.spec.kind == SURVIVAL else 'a value'}"
            self.faults.add("no-values", self.where, found, "values of two patients or more")
        lost = self.patients - len(values)
        if lost:
            self.notes.append(f"{lost:,} of {counted(self.patients, 'patient')} left out")
        spec, notes, cautions = self.spec, self._signed(self.notes), self._signed(self.cautions)
        return TargetValues(spec.name, spec.kind, spec.columns, self.unit, values, notes, cautions)

    @property
    def where(self) -> str:
        names = " and ".join(f"'{column.name}'" for column in self.columns)
        return f"{self.columns[0].path} column{'s' * (len(self.columns) > 1)} {names}"

    def _signed(self, sentences: list[str]) -> tuple[str, ...]:
        return tuple(f"target '{self.spec.name}': {sentence}" for sentence in sentences)

    def _classes(self) -> dict[str, str]:
        (column,) = self.columns
        pairs = ((cell, cell.text) for cell in column.names())
        values = _plain(by_patient(pairs, column, self.faults))
        if len(set(values.values())) == 1:
            found = f"only the class '{next(iter(values.values()))}'"
            self.faults.add("one-class", self.where, found, "two classes or more")
        return values

    def _regression(self) -> dict[str, float]:
        (column,) = self.columns
        values = _plain(self._numbers(column))
        if values:
            value, count = min(Counter(values.values()).items(), key=lambda item: (-item[1], item))
            if count == len(values):
                found = f"{value:g} for every patient"
                self.faults.add("one-value", self.where, found, "numbers that differ")
            elif count >= _SAME * len(values):
                many = f"{count:,} of {counted(len(values), 'patient')}"
                self.cautions.append(f"{many} have the same number, {value:g}")
        return values

    def _survival(self) -> dict[str, Outcome]:
        time, event = self.columns
        self.unit = read_unit(time, self.spec, self.faults)
        times = self._numbers(time)
        events = read_events(event, self.spec, self.faults)
        for case, (value, cell) in times.items():
            if value < 0:
                found = f"the time '{cell.text}' of patient '{case}' in column '{time.name}'"
                self.faults.add("negative-time", cell.where, found, "a time above 0")
        values = {
            case: Outcome(value, events[case][0])
            for case, (value, _) in times.items()
            if case in events
        }
        if not self.faults.items:
            self._check_pairs(times, events, values)
            values = self._without_zeros(times, values)
        if values and not self.faults.items:
            self._check_plausible(values)
        return values

    def _numbers(self, column: Column) -> Known[float]:
        numbers = read_numbers(column.codes(), column, self.faults)
        return by_patient(numbers, column, self.faults)

    def _check_pairs(
        self, times: Known[float], events: Known[bool], values: dict[str, Outcome]
    ) -> None:
        """Note the patients with only one of two values, and look for a column that lacks a kind.

        GDC's ``days_to_death`` has no time for the living, so that only the dead would be left.
        """
        for one, only, other in ((times, "a time", "event"), (events, "an event", "time")):
            if alone := len(one) - len(values):
                self.notes.append(f"{counted(alone, 'patient')} with {only} and no {other}")
        for is_event, kind in ((False, "without an event"), (True, "with an event")):
            all_of_kind = [case for case, (value, _) in events.items() if value == is_event]
            if all_of_kind and values and not any(case in values for case in all_of_kind):
                found = f"no time for any of {counted(len(all_of_kind), 'patient')} {kind}"
                expected = (
                    "the time to the event or to the last follow-up of every patient in one "
                    "column, as GDC has them in two, days_to_death and days_to_last_follow_up"
                )
                self.faults.add("one-sided-times", self.columns[0].where, found, expected)

    def _without_zeros(self, times: Known[float], values: dict[str, Outcome]) -> dict[str, Outcome]:
        """The values, in which times of zero became what the target says; else a fault."""
        zeros = [case for case, outcome in values.items() if outcome.time == 0]
        if not zeros:
            return values
        kept = {case: outcome for case, outcome in values.items() if outcome.time > 0}
        half = min((outcome.time for outcome in kept.values()), default=0.0) / 2
        many, time = counted(len(zeros), "patient"), self.columns[0]
        if kept and self.spec.zero == "drop":
            self.notes.append(f"{many} with a time of 0, which ':zero=drop' leaves out")
            return kept
        if kept and self.spec.zero == "half":
            self.notes.append(
                f"{many} with a time of 0 got {half:g} {self.unit}, half of the smallest positive "
                "time, as ':zero=half' says"
            )
            more = {case: replace(values[case], time=half) for case in zeros}
            return {case: more.get(case, outcome) for case, outcome in values.items()}
        expected = "times above 0"
        if kept:
            drop, to_half = (replace(self.spec, zero=zero).text for zero in ("drop", "half"))
            expected += (
                f"; '{drop}' leaves such patients out of this target, '{to_half}' gives them "
                f"{half:g} {self.unit}, half of the smallest positive time"
            )
        shown = [f"'{case}' in {time.row_of(times[case][1])}" for case in zeros]
        found = f"a time of 0 for {many}: {listed(shown)}"
        self.faults.add("zero-time", time.where, found, expected)
        return values

    def _check_plausible(self, values: dict[str, Outcome]) -> None:
        """A fault if there is no event; cautions if all are events, or if the unit seems wrong."""
        events = sum(outcome.event for outcome in values.values())
        if not events:
            found = f"no event among {counted(len(values), 'patient')}"
            expected = "events: with none, there is nothing to learn"
            self.faults.add("no-event", self.columns[1].where, found, expected)
        elif events == len(values):
            self.cautions.append(
                f"each of {counted(events, 'patient')} has an event, and none is censored: is "
                f"column '{self.columns[1].name}' that of events?"
            )
        longest = max(outcome.time for outcome in values.values())
        if text := unit_caution(self.columns[0], self.unit, longest):
            self.cautions.append(text)


def _plain(known: Known[T]) -> dict[str, T]:
    return {case: value for case, (value, _) in known.items()}
