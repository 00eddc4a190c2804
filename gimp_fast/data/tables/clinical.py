"""Columns of a clinical table, with one value for each patient.

A table may have a row for each slide: a patient's rows must agree where they have a value. Besides
the cells that every table of this package calls missing, those are missing by which TCGA
(``[Not Available]``, ``[Discrepancy]``, …) and GDC (``'--``, ``Not Reported``) say that nothing is
known; a note counts them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from gimp_fast.data.names import PATIENT_COLUMNS
from gimp_fast.data.rna.dates import find_dates
from gimp_fast.errors import FaultError, Faults
from gimp_fast.files.numbers import MISSING, MISSING_NUMBERS, DecimalComma, number
from gimp_fast.files.table import Table, open_table, read_rows

T = TypeVar("T")

# Those of every table of patients, then those of cBioPortal's site, TCGA-CDR and GDC.
CASE_COLUMNS = (
    *PATIENT_COLUMNS, "Patient ID", "bcr_patient_barcode", "case_submitter_id",
    "cases.submitter_id",
)  # fmt: skip
# In lower case; how TCGA and GDC write that a value is not known.
NOT_KNOWN = frozenset({
    "[not available]", "[not applicable]", "[not evaluated]", "[unknown]", "[discrepancy]",
    "[completed]", "[pending]", "'--", "--", "not reported", "unknown",
})  # fmt: skip
SHOWN = 5  # values or patients that a sentence names; it counts the others


@dataclass(frozen=True)
class Cell:
    """A cell that is not empty."""

    case_id: str
    text: str
    where: str


Known = dict[str, tuple[T, Cell]]  # patient -> the value, and the first cell that has it


@dataclass(frozen=True)
class Column:
    """The cells of a column that are not empty, in the order of the rows."""

    name: str
    path: Path
    cells: tuple[Cell, ...]
    has_decimal_commas: bool = False  # 1,5 may stand for 1.5

    @property
    def where(self) -> str:
        """The column, as faults name it."""
        return f"{self.path} column '{self.name}'"

    def row_of(self, cell: Cell) -> str:
        """The row of a cell, without the file."""
        return cell.where.removeprefix(f"{self.path} ")

    def names(self) -> list[Cell]:
        """The cells with a value, of a column whose values are names."""
        return [cell for cell in self.cells if not _is_missing(cell.text, MISSING)]

    def codes(self) -> list[Cell]:
        """The cells with a value, of a column of numbers or codes, where "None" is no value."""
        return [cell for cell in self.cells if not _is_missing(cell.text, MISSING_NUMBERS)]

    def notes(self) -> list[str]:
        """A sentence on the cells with words that were read as missing, if there are any."""
        words = Counter(cell.text for cell in self.cells if cell.text.lower() in NOT_KNOWN)
        if not words:
            return []
        counts = [f"'{word}' in {n:,}" for word, n in sorted(words.items())]
        return [f"column '{self.name}': read as missing: {listed(counts)}"]


@dataclass(frozen=True)
class Rows:
    """Columns of a table; ``cases`` are all its patients, sorted. Empty if rows are unreadable."""

    cases: tuple[str, ...]
    columns: Mapping[str, Column]


def _is_missing(text: str, markers: Collection[str]) -> bool:
    return text in markers or text.lower() in NOT_KNOWN


def open_clinical(path: str | Path) -> Table:
    """A clinical table; above the header may be lines that begin with ``#``, as cBioPortal has.

    Raises:
        FaultError: missing, unreadable or not text.
    """
    table = open_table(path)
    is_comment = "".join(table.header[:1]).startswith("#")
    if not is_comment or set(CASE_COLUMNS) & set(table.header):
        return table
    for row, _, cells in read_rows(table.path, table.delimiter, table.expected):
        if not cells[0].startswith("#"):
            header = tuple(cell.strip() for cell in cells)
            return replace(table, header=header, header_row=row)
    return table


def read_columns(table: Table, names: Iterable[str], faults: Faults) -> Rows:
    """Some columns of a table, without those that it lacks, each of which is a fault."""
    present = []
    for name in dict.fromkeys(names):
        with faults.collect():
            table.require(name)
            present.append(name)
    cases: set[str] = set()
    cells: dict[str, list[Cell]] = {name: [] for name in present}
    count, is_complete = 0, False
    with faults.collect():
        for where, case, *texts in table.rows(table.one_of(*CASE_COLUMNS), *present):
            count += 1
            if not case:
                faults.add("missing-id", where, "no patient id", "a patient's id")
                continue
            if not "".join([case, *texts]).isprintable():
                found = f"a line break or an invisible character in {(case, *texts)}"
                faults.add("bad-id", where, found, "cells of plain text")
                continue
            cases.add(case)
            for name, text in zip(present, texts, strict=True):
                if text:
                    cells[name].append(Cell(case, text, where))
        is_complete = True
        if not count:
            faults.add("no-rows", table.path, "a table without rows", "a row for each patient")
    if not is_complete:  # what the rest of the rows would say is not known
        return Rows((), {})
    comma = table.delimiter == ";"
    columns = {name: Column(name, table.path, tuple(cells[name]), comma) for name in present}
    return Rows(tuple(sorted(cases)), columns)


def read_numbers(cells: Sequence[Cell], column: Column, faults: Faults) -> list[tuple[Cell, float]]:
    """The cells that are finite numbers; each of the others is a fault."""
    point = DecimalComma() if column.has_decimal_commas else None
    found = []
    for cell in cells:
        with faults.collect():
            text = point.replaced([cell.text], cell.where)[0] if point else cell.text
            value = _number(text, column.name, cell.where)
            if math.isfinite(value):
                found.append((cell, value))
            else:
                text = f"'{cell.text}' in column '{column.name}'"
                faults.add("not-finite", cell.where, text, "a finite number, or an empty cell")
    if point:
        with faults.collect():
            point.check(column.path)
    return found


def _number(text: str, name: str, where: str) -> float:
    try:
        return number(text, name, where)
    except FaultError:
        if not find_dates([text]):
            raise
        found = f"'{text}' in column '{name}', which looks like a date"
        expected = "a number; of two dates, how many days lie between them"
        raise FaultError.of("unreadable-file", where, found, expected) from None


def by_patient(pairs: Iterable[tuple[Cell, T]], column: Column, faults: Faults) -> Known[T]:
    """The value of each patient, sorted by patient; two values of one patient are a fault."""
    known: Known[T] = {}
    refused: set[str] = set()
    for cell, value in pairs:
        case = cell.case_id
        first, before = known.setdefault(case, (value, cell))
        if first != value and case not in refused:
            refused.add(case)
            found = f"'{cell.text}' in column '{column.name}' for patient '{case}'"
            expected = f"'{before.text}' as in {column.row_of(before)}"
            faults.add("value-conflict", cell.where, found, expected)
    return dict(sorted(known.items()))


def listed(items: Sequence[str]) -> str:
    """The first few items, and how many more there are."""
    more = f" and {len(items) - SHOWN:,} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more


def quoted(texts: Iterable[str]) -> str:
    """The first few texts of a column in quotes, each cut to a line, and how many more."""
    return listed([f"'{text[:60]}'" for text in texts])
