"""Tables in text files, read strictly: a fault names the file, and the row and column in it.

Nothing is guessed, padded or skipped without a word, as fast csv readers do. Numbers are parsed
one cell at a time with ``float``: they are rounded exactly, and text among them is found.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np

from gimp_fast.errors import FaultError, did_you_mean, one_line
from gimp_fast.files.atomic import write_text
from gimp_fast.files.safe_text import guarded

# How R, pandas and spreadsheets write that there is no value.
MISSING = frozenset({"", "NA", "N/A", "#N/A", "<NA>", "NaN", "nan"})
# These can be the name of a class, but where a number should be they mean that there is none.
MISSING_NUMBERS = MISSING | {"na", "null", "NULL", "None", "."}
_DELIMITERS = ",;\t"
_SHOWN_COLUMNS = 30  # of a table that may have a column for each gene
_LONGEST_LINE = 1 << 28  # characters; a longer line need not fit in memory
_READ_ERRORS = (OSError, EOFError, ValueError, zlib.error)
# Bytes that are not UTF-8, as surrogateescape keeps them.
_UNDECODED = re.compile("[\udc80-\udcff]")
_PLAIN = "plain UTF-8 text"


@dataclass(frozen=True)
class Block:
    """Rows of a table with numbers."""

    rows: list[int]  # R row numbers as a user would count them
    texts: list[list[str]]  # R lists, the cells of the text columns asked for
    values: np.ndarray  # (R, K) float32, the number columns asked for; NaN where a cell is missing


@dataclass(frozen=True)
class Table:
    """A delimited text file, also compressed (``.gz``), whose header has been read.

    Cells are stripped; blank lines are skipped.

    Attributes:
        exact: every row must have as many cells as the header; otherwise missing ones are empty.
        whole: the last line must end, and quotes may not span lines: a table of numbers, where a
            number cut short is another number.
        expected: what the file should be, for faults.
    """

    path: Path
    header: tuple[str, ...]
    delimiter: str
    exact: bool
    whole: bool
    expected: str

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
        for row, where, cells in islice(self._rows(), limit):
            if rows is None or row in rows:
                kept.append(row)
                texts.append([cells[n].strip() for n in text])
                values.append(_numbers([cells[n] for n in number], names, where))
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
        rows = read_rows(self.path, self.delimiter, self.expected, whole=self.whole)
        next(rows, None)
        width = len(self.header)
        for number, where, cells in rows:
            if len(cells) > width or (self.exact and len(cells) < width):
                expected = f"{width} as in the header"
                raise FaultError.of("row-length", where, f"{len(cells)} cells", expected)
            yield number, where, cells


def open_table(
    path: str | Path,
    delimiter: str | None = None,
    *,
    exact: bool = False,
    whole: bool = False,
    expected: str = "a csv",
) -> Table:
    """A table whose header has been read.

    Args:
        path: the file.
        delimiter: None for comma, semicolon or tab, whichever the header has most of.
        exact, whole, expected: as in ``Table``.

    Raises:
        FaultError: missing, unreadable or not UTF-8.
    """
    path = Path(path)
    if delimiter is None:
        _, first = next(read_lines(path, expected), (1, ""))
        delimiter = max(_DELIMITERS, key=first.count)
    _, _, header = next(read_rows(path, delimiter, expected, whole=whole), (1, "", []))
    names = tuple(cell.strip() for cell in header)
    return Table(path, names, delimiter, exact, whole, expected)


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
    path: Path, delimiter: str, expected: str, *, whole: bool = False
) -> Iterator[tuple[int, str, list[str]]]:
    """(row number from 1, file and row, cells) of each row that is not blank; no header needed.

    Raises:
        FaultError: unreadable, cut short, not UTF-8, or quotes that do not match.
    """
    lines = read_lines(path, expected, whole=whole)
    for number, line in lines:
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
                expected = "quotes around whole cells"
                raise FaultError.of("unreadable-file", where, one_line(error), expected) from error
        if whole or any(cell.strip() for cell in cells):
            yield number, where, cells


def read_lines(path: Path, expected: str, *, whole: bool = False) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end) of each line that is not blank.

    Raises:
        FaultError: unreadable, not UTF-8; or, if ``whole``, a last line that does not end.
    """
    try:
        with io.TextIOWrapper(_open_bytes(path), "utf-8-sig", "surrogateescape") as text:
            line = "\n"
            for number, line in enumerate(iter(lambda: text.readline(_LONGEST_LINE), ""), 1):
                _check_encoding(line, f"{path} row {number}")
                if len(line) == _LONGEST_LINE:
                    found = f"{len(line)} characters without line end"
                    raise FaultError.of("unreadable-file", f"{path} row {number}", found, expected)
                if line.strip(" \n"):
                    yield number, line.removesuffix("\n")
        # The checksum of a .gz says that nothing is missing.
        if whole and not line.endswith("\n") and path.suffix.lower() != ".gz":
            raise _cut_short(path)
    except _READ_ERRORS as error:
        raise _unreadable(path, error, expected) from error


def read_bytes(path: Path, expected: str) -> bytes:
    """A whole text file whose last line ends: a number cut short is another number.

    Raises:
        FaultError: unreadable, not UTF-8, or cut short.
    """
    try:
        with _open_bytes(path) as stream:
            data = stream.read()
    except _READ_ERRORS as error:
        raise _unreadable(path, error, expected) from error
    if not data.isascii() or b"\0" in data:
        _check_encoding(data.decode("utf-8-sig", "surrogateescape"), str(path))
    if data and not data.endswith(b"\n"):
        if path.suffix.lower() != ".gz":
            raise _cut_short(path)
        data += b"\n"
    return data.removeprefix(b"\xef\xbb\xbf")


def read_text(path: Path, expected: str) -> str:
    """Text of a UTF-8 file, with or without byte order mark; FaultError as ``read_lines``."""
    return "\n".join(line for _, line in read_lines(path, expected))


def number(cell: str, name: str, where: str) -> float:
    """One number; NaN for a cell that says there is none; FaultError for anything else."""
    if cell.strip() in MISSING_NUMBERS:
        return float("nan")
    try:
        if "_" in cell or not cell.isascii():  # float also accepts 1_000 and Arabic digits
            raise ValueError
        return float(cell)
    except ValueError as error:
        found = f"'{cell[:60].strip()}' in column '{name}'"
        expected = "a number, or an empty cell"
        raise FaultError.of("unreadable-file", where, found, expected) from error


def _numbers(cells: Sequence[str], names: Sequence[str], where: str) -> np.ndarray:
    """Numbers (n,) float32 of one row; NaN where a cell says that there is none."""
    joined = "".join(cells)
    try:
        if "_" in joined or not joined.isascii():
            raise ValueError
        values = np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        values = np.array([number(*pair, where) for pair in zip(cells, names, strict=True)])
    with np.errstate(over="ignore"):  # too large for float32 is infinite, which later checks report
        return values.astype(np.float32)


def _open_bytes(path: Path):
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")


def _check_encoding(text: str, where: str) -> None:
    """FaultError if text that was decoded with surrogateescape was not UTF-8."""
    if text.startswith("PK\x03\x04"):
        raise FaultError.of("encoding", where, "a zip archive or Excel workbook", _PLAIN)
    if "\0" in text:
        found = "a NUL character, as in UTF-16 text or a damaged file"
        raise FaultError.of("encoding", where, found, _PLAIN)
    if not text.isascii() and (bad := _UNDECODED.search(text)):
        found = f"another encoding (byte 0x{ord(bad[0]) - 0xDC00:02x} at position {bad.start()})"
        raise FaultError.of("encoding", where, found, _PLAIN)


def _cut_short(path: Path) -> FaultError:
    found, expected = "a last line without its end", "a complete file, with a line end at the end"
    return FaultError.of("truncated-file", path, found, expected)


def _unreadable(path: Path, error: BaseException, expected: str) -> FaultError:
    if isinstance(error, FileNotFoundError):
        return FaultError.of("missing-file", path, "no such file", expected)
    kind = "truncated-file" if isinstance(error, EOFError) else "unreadable-file"
    return FaultError.of(kind, path, one_line(error), expected)
