"""Tables in text files, read strictly: a fault names the file, and the row and column in it.

Nothing is guessed, padded or skipped without a word, as fast csv readers do. Numbers are parsed
one cell at a time with ``float``: they are rounded exactly, and text among them is found.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np

from gimp_fast.errors import FaultError, did_you_mean, one_line
from gimp_fast.files.atomic import write_text
from gimp_fast.files.numbers import DecimalComma, parse_numbers
from gimp_fast.files.safe_text import guarded
from gimp_fast.files.text import read_lines

_DELIMITERS = "\t;,"  # of two that a header has as many of, the first
_NAMED = {",": "commas", ";": "semicolons", "\t": "tabs", " ": "spaces"}
_SEP = re.compile(r'"?sep=.?"?', re.IGNORECASE)  # the first line for Excel, not part of the table
_IN_QUOTES = re.compile('"[^"]*"')
_SHOWN_COLUMNS = 30  # of a table that may have a column for each gene


@dataclass(frozen=True)
class Block:
    """Rows of a table with numbers."""

    rows: list[int]  # R row numbers as a user would count them
    texts: list[list[str]]  # R lists, the cells of the text columns asked for
    values: np.ndarray  # (R, K) float32, the number columns asked for; NaN where a cell is missing


@dataclass(frozen=True)
class Table:
    """A delimited text file, also compressed, whose header has been read.

    Cells are stripped; blank lines are skipped.

    Attributes:
        exact: every row must have as many cells as the header; otherwise missing ones are empty.
        whole: the last line must end, and quotes may not span lines: a table of numbers, where a
            number cut short is another number.
        expected: what the file should be, for faults.
        header_row: row number of the header; above it are only comments.
    """

    path: Path
    header: tuple[str, ...]
    delimiter: str
    exact: bool
    whole: bool
    expected: str
    header_row: int = 1

    def rows(self, *columns: str) -> Iterator[tuple[str, ...]]:
        """(where, cell, …) of each row, for some columns or for all.

        Raises:
            FaultError: a column is missing or appears twice, a row has the wrong length, or
                quotes are not closed.
        """
        self.require(*columns)
        places = [self.header.index(name) for name in columns] or range(len(self.header))
        for _, where, cells in self._rows():
            yield where, *(cells[n].strip() if n < len(cells) else "" for n in places)

    def records(self) -> list[dict[str, str]]:
        """All rows, as column -> cell."""
        return [dict(zip(self.header, cells, strict=True)) for _, *cells in self.rows()]

    def read(
        self,
        text: Sequence[int],
        number: Sequence[int] = (),
        *,
        rows: Collection[int] | None = None,
        limit: int | None = None,
    ) -> Block:
        """Text and number columns, by their places.

        Args:
            text: places of text columns.
            number: places of number columns.
            rows: numbers of the rows to read; None for all.
            limit: read no more rows than this.

        Raises:
            FaultError: unreadable, a row of another length than the header, or text for a number.
        """
        names = [self.header[n] for n in number]
        kept, texts, values = [], [], []
        point = DecimalComma() if self.delimiter == ";" else None
        for row, where, cells in islice(self._rows(), limit):
            if rows is None or row in rows:
                kept.append(row)
                texts.append([cells[n].strip() for n in text])
                numbers = [cells[n] for n in number]
                if point is not None:
                    numbers = point.replaced(numbers, where)
                values.append(parse_numbers(numbers, names, where))
        if point is not None:
            point.check(self.path)
        stacked = np.stack(values) if values else np.empty((0, len(number)), np.float32)
        return Block(kept, texts, stacked)

    def require(self, *columns: str) -> None:
        """FaultError unless each column is in the header exactly once."""
        missing = [name for name in columns if name not in self.header]
        if missing:
            found = f"no column {', '.join(missing)} among {self.describe_header()}"
            expected = ", ".join(columns) + did_you_mean(missing[0], self.header)
            raise FaultError.of("missing-column", self.path, found, expected)
        for name in columns:
            if self.header.count(name) > 1:
                found = f"{self.header.count(name)} columns '{name}'"
                raise FaultError.of("duplicate-column", self.path, found, "one")

    def one_of(self, *columns: str) -> str:
        """The first of these columns that the header has; FaultError if it has none."""
        for name in columns:
            if name in self.header:
                return name
        found = f"no column {' or '.join(columns)} among {self.describe_header()}"
        # Of several names, the one that is most like a column that is there.
        near = next(filter(None, (did_you_mean(name, self.header) for name in columns)), "")
        raise FaultError.of("missing-column", self.path, found, " or ".join(columns) + near)

    def describe_header(self) -> str:
        """The named columns; the first of them if there are many."""
        names = [name for name in self.header if name]
        more = [f"and {len(names) - _SHOWN_COLUMNS} more"] if len(names) > _SHOWN_COLUMNS else []
        return ", ".join(names[:_SHOWN_COLUMNS] + more) or "none"

    def _rows(self) -> Iterator[tuple[int, str, list[str]]]:
        start = self.header_row
        rows = read_rows(self.path, self.delimiter, self.expected, whole=self.whole, start=start)
        next(rows, None)
        width = len(self.header)
        first = True
        for number, where, cells in rows:
            if len(cells) > width or (self.exact and len(cells) < width):
                expected = f"{width} as in the header"
                if first and len(cells) == width + 1:
                    expected += ", which R's write.table leaves a cell short: use col.names=NA"
                raise FaultError.of("row-length", where, f"{len(cells)} cells", expected)
            first = False
            yield number, where, cells


def open_table(
    path: str | Path,
    delimiter: str | None = None,
    *,
    exact: bool = False,
    whole: bool = False,
    comments: bool = False,
    expected: str = "a csv",
    corners: Collection[str] = (),
) -> Table:
    """A table whose header has been read.

    A table of numbers (``whole``) may be as R and featureCounts write it: with comments above the
    header, without a name above the row names, or with spaces between cells.

    Args:
        path: the file.
        delimiter: None for tab, semicolon or comma, whichever the header has most of.
        exact, whole, expected: as in ``Table``.
        comments: whether lines that begin with ``#`` may be above the header.
        corners: names of a first column, in lower case: a header that begins with one of them is
            not taken for R's, which has no name there.

    Raises:
        FaultError: missing, unreadable or not text.
    """
    path = Path(path)
    start, line = _header_line(path, expected) if whole or comments else _first_line(path, expected)
    delimiter = delimiter or find_delimiter(line, spaces=whole)
    rows = read_rows(path, delimiter, expected, whole=whole, start=start)
    _, _, header = next(rows, (1, "", []))
    names = [cell.strip() for cell in header]
    if whole and names:  # what looks like a comment may be the header
        names[0] = names[0].removeprefix("#").strip()
    if whole and exact:
        _, _, first = next(rows, (1, "", []))
        if len(first) == len(names) + 1 and _is_headed_by_r(names, first, corners):
            names = ["", *names]
    return Table(path, tuple(names), delimiter, exact, whole, expected, start)


def _is_headed_by_r(names: list[str], first: list[str], corners: Collection[str]) -> bool:
    """True if the header lacks the name above the row names, which R's write.table leaves out."""
    numbered = first[0].strip() == "1" and not first[1].strip().isnumeric()
    return bool(first[-1].strip()) and (names[0].lower() not in corners or numbered)


def _first_line(path: Path, expected: str) -> tuple[int, str]:
    lines = read_lines(path, expected)
    return next((line for line in lines if not _SEP.fullmatch(line[1])), (1, ""))


def _header_line(path: Path, expected: str) -> tuple[int, str]:
    """Row number and text of the header of a table of numbers, which may follow comments."""
    comment, skip = (1, ""), 0
    for number, line in read_lines(path, expected):
        if _SEP.fullmatch(line):
            continue
        if skip:
            skip -= 1
        elif line.startswith("#"):
            comment = number, line
            skip = int(line.strip() == "#1.2")  # GCT: then a line with the size of the table
        else:
            cells = [len(text.split(find_delimiter(line))) for text in (comment[1], line)]
            is_header = cells[0] > 1 and cells[1] - cells[0] in (0, 1)
            return comment if is_header else (number, line)
    return comment


def find_delimiter(line: str, *, spaces: bool = False) -> str:
    """What separates the cells of a header: tab, semicolon or comma; a comma if it has none.

    Args:
        line: the header.
        spaces: whether cells may be separated by single spaces, as R writes by default.
    """
    plain = _IN_QUOTES.sub("name", line)
    found = max(_DELIMITERS, key=plain.count)
    if plain.count(found):
        return found
    return " " if spaces and " " in plain.strip() else ","


def write_table(
    file: Path, rows: Sequence[dict[str, str]], columns: tuple[str, ...] | None = None
) -> None:
    """Write rows of text as csv; the columns are those of the first row unless given.

    Cells are ``guarded``: who reads them again must undo it.

    Raises:
        GimpError: the file cannot be written; what was there before is unchanged.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, columns or tuple(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows({name: guarded(cell) for name, cell in row.items()} for row in rows)
    write_text(file, text.getvalue())


def read_rows(
    path: Path, delimiter: str, expected: str, *, whole: bool = False, start: int = 1
) -> Iterator[tuple[int, str, list[str]]]:
    """(row number from 1, file and row, cells) of each row that is not blank; no header needed.

    Args:
        path: the file.
        delimiter: between cells.
        expected: what the file should be, for faults.
        whole: as in ``Table``.
        start: the first row to read; those above it are comments.

    Raises:
        FaultError: unreadable, cut short, not UTF-8, or quotes that do not match.
    """
    lines = read_lines(path, expected, whole=whole)
    for number, line in lines:
        if number < start:
            continue
        where = f"{path} row {number}"
        if '"' not in line:
            cells = line.split(delimiter)
        else:
            # A cell in quotes may contain line ends. Strict: a quote that is never closed would
            # swallow all rows after it.
            more = () if whole else (f"{text}\n" for _, text in lines)
            row = chain([f"{line}\n"], more)
            try:
                cells = next(csv.reader(row, delimiter=delimiter, strict=True))
            except csv.Error as error:
                expected = f"quotes around whole cells, and {_NAMED[delimiter]} between them"
                raise FaultError.of("unreadable-file", where, one_line(error), expected) from error
        if whole or any(cell.strip() for cell in cells):
            yield number, where, cells
