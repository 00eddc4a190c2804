"""Tables of numbers with named columns, as text or as Parquet, behind one interface.

A grid knows nothing of genes or samples; ``tables`` does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from gimp_fast.errors import FaultError
from gimp_fast.files.number_text import decode, numbers, read_lines, split_cells

PARQUET_SUFFIXES = (".parquet", ".pq")


@dataclass(frozen=True)
class Block:
    """Rows of a grid.

    Attributes:
        rows: R row numbers as a user would count them.
        texts: R lists, the cells of the text columns asked for.
        values: (R, K) float32, the number columns asked for; NaN where a cell is missing.
    """

    rows: list[int]
    texts: list[list[str]]
    values: np.ndarray


class Grid(Protocol):
    """A table: its file and the names of its columns."""

    path: Path
    header: list[str]

    def texts(self, columns: Sequence[int], limit: int | None = None) -> Block:
        """Text columns of all rows, or of the first few; no values."""
        ...

    def read(
        self, text: Sequence[int], number: Sequence[int], rows: Collection[int] | None = None
    ) -> Block:
        """Text and number columns of all rows, or of those with these numbers.

        Raises:
            FaultError: unreadable, rows of another length than the header, or text for a number.
        """
        ...


def open_grid(path: Path) -> Grid:
    """The grid of a ``.csv``, ``.tsv``, ``.txt`` (each also ``.gz``) or ``.parquet`` file."""
    if path.suffix.lower() in PARQUET_SUFFIXES:
        from gimp_fast.data.rna.parquet import ParquetGrid

        return ParquetGrid(path)
    name = path.name.lower().removesuffix(".gz")
    return TextGrid(path, "," if name.endswith(".csv") else "\t")


class TextGrid:
    """A delimited text file; cells may stand in quotes."""

    def __init__(self, path: Path, delimiter: str):
        self.path, self._delimiter = path, delimiter
        self._expected = f"a table of {'commas' if delimiter == ',' else 'tabs'}"
        number, line = next(read_lines(path, self._expected), (1, b""))
        where = f"{path} row {number}"
        if line.startswith(b"# gene-model"):
            expected = "its folder, with gdc_sample_sheet.tsv: one file holds one sample"
            raise FaultError.of("single-sample", path, "a single GDC STAR file", expected)
        self.header = [decode(cell, where) for cell in split_cells(line, delimiter, where)]
        if len(self.header) < 2:
            kind = "commas" if delimiter == "," else "tabs"
            expected = f"a column of ids, then one a sample or gene ({kind} between them)"
            raise FaultError.of("no-samples", path, f"header '{self.header[0][:60]}'", expected)

    def _rows(self) -> Iterator[tuple[int, str, bytes]]:
        lines = read_lines(self.path, self._expected)
        next(lines, None)
        for number, line in lines:
            yield number, f"{self.path} row {number}", line

    def texts(self, columns: Sequence[int], limit: int | None = None) -> Block:
        rows, texts = [], []
        for number, where, line in self._rows():
            if limit is not None and len(rows) == limit:
                break
            cells = self._cells(line, where)
            rows.append(number)
            texts.append([decode(cells[n], where) for n in columns])
        return Block(rows, texts, np.empty((len(rows), 0), np.float32))

    def read(
        self, text: Sequence[int], number: Sequence[int], rows: Collection[int] | None = None
    ) -> Block:
        names = [self.header[n] for n in number]
        kept, texts, values = [], [], []
        for row, where, line in self._rows():
            cells = self._cells(line, where)
            if rows is not None and row not in rows:
                continue
            kept.append(row)
            texts.append([decode(cells[n], where) for n in text])
            chosen = [cells[n] for n in number]
            values.append(numbers(chosen, names, where, underscores=b"_" in line))
        stacked = np.stack(values) if values else np.empty((0, len(number)), np.float32)
        return Block(kept, texts, stacked)

    def _cells(self, line: bytes, where: str) -> list[bytes]:
        cells = split_cells(line, self._delimiter, where)
        if len(cells) != len(self.header):
            expected = f"{len(self.header)} as in the header"
            raise FaultError.of("row-length", where, f"{len(cells)} cells", expected)
        return cells
