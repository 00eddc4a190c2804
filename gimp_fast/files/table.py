"""A csv file as text: header, rows, and clear faults for everything that is no such thing."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gimp_fast.errors import FaultError

DELIMITERS = ",;\t"
SHOWN_COLUMNS = 30  # of a table that may have one a gene


@dataclass(frozen=True)
class Table:
    """A csv file whose header has been read. Cells are stripped text; blank lines do not count."""

    path: Path
    header: tuple[str, ...]
    delimiter: str
    text: str = field(repr=False)

    def rows(self, *columns: str) -> Iterator[tuple[str, ...]]:
        """(where, cell, …) of each row; cells that a short row lacks are empty.

        Raises:
            FaultError: a column is missing or stands twice, a row is longer than the header, or
                quotes are not closed.
        """
        self.require(*columns)
        places = [self.header.index(name) for name in columns]
        lines = self._lines()
        next(lines, None)
        for number, cells in lines:
            where = f"{self.path} row {number}"
            if len(cells) > len(self.header):
                expected = f"{len(self.header)} cells"
                raise FaultError.of("row-length", where, f"{len(cells)} cells", expected)
            yield where, *(cells[i] if i < len(cells) else "" for i in places)

    def require(self, *columns: str) -> None:
        """FaultError unless each column stands in the header once."""
        missing = [name for name in columns if name not in self.header]
        if missing:
            found = f"no column {', '.join(missing)} among {self.describe_header()}"
            raise FaultError.of("missing-column", self.path, found, ", ".join(columns))
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
        raise FaultError.of("missing-column", self.path, found, " or ".join(columns))

    def describe_header(self) -> str:
        """The named columns, the first of them if they are many."""
        names = [name for name in self.header if name]
        more = [f"and {len(names) - SHOWN_COLUMNS} more"] if len(names) > SHOWN_COLUMNS else []
        return ", ".join(names[:SHOWN_COLUMNS] + more) or "none"

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        # Strict: a quote that is never closed would swallow all rows after it.
        reader = csv.reader(
            io.StringIO(self.text, newline=""), delimiter=self.delimiter, strict=True
        )
        try:
            for line in reader:
                cells = [cell.strip() for cell in line]
                if any(cells):
                    yield reader.line_num, cells
        except csv.Error as error:
            where = f"{self.path} row {reader.line_num}"
            raise FaultError.of("unreadable-file", where, str(error), "a csv table") from error


def open_table(path: str | Path) -> Table:
    """Read a csv file separated by commas, semicolons or tabs: whichever its header has most of.

    Raises:
        FaultError: missing, unreadable or not UTF-8.
    """
    path = Path(path)
    text = read_text(path, "a csv")
    first = next((line for line in io.StringIO(text) if line.strip()), "")
    delimiter = max(DELIMITERS, key=first.count)
    table = Table(path, (), delimiter, text)
    for _, header in table._lines():
        return Table(path, tuple(header), delimiter, text)
    return table


def read_text(path: Path, expected: str) -> str:
    """Text of a UTF-8 file, with or without byte order mark.

    Raises:
        FaultError: missing, unreadable, or in another encoding.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise FaultError.of("missing-file", path, "no such file", expected) from error
    except (OSError, ValueError) as error:
        found = " ".join(str(error).split())
        raise FaultError.of("unreadable-file", path, found, expected) from error
    wanted = f"{expected} in UTF-8"
    if content.startswith(b"PK\x03\x04"):
        raise FaultError.of("encoding", path, "a zip archive or Excel workbook", wanted)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise FaultError.of("encoding", path, "UTF-16 text", wanted)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = content[error.start]
        found = f"another encoding (byte 0x{byte:02x} at position {error.start})"
        raise FaultError.of("encoding", path, found, wanted) from error
    if "\0" in text:
        found = f"a NUL character at position {text.index(chr(0))}: UTF-16, or a damaged file"
        raise FaultError.of("encoding", path, found, wanted)
    return text
