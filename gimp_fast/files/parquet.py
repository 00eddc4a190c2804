"""Parquet tables, read with pyarrow, which is imported only for them."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from gimp_fast.errors import DAMAGE_ERRORS, FaultError, missing_library, one_line
from gimp_fast.files.kinds import PARQUET
from gimp_fast.files.table import Block


class ParquetTable:
    """A Parquet file with the ``header`` and ``read`` of a ``table.Table``.

    An index that pandas stored comes first, as in a csv; one without a name has an empty header.
    """

    def __init__(self, path: Path):
        self.path = path
        self._arrow = _pyarrow(path)
        if path.is_file() and not _begins_as_parquet(path):
            found, expected = "another kind of file under this name", "Parquet; text is named .csv"
            raise FaultError.of("unreadable-file", path, found, expected)
        with self._reading():
            file = self._open()
            names, index = list(file.schema_arrow.names), _index_of(file.schema_arrow)
            if len(set(names)) < len(names):
                raise FaultError.of(
                    "duplicate-column", path, "two columns of one name", "each name once"
                )
            for name in names:
                name.encode("utf-8")
        self._names = [*index, *(name for name in names if name not in index)]
        self.header = ["" if name.startswith("__index_level_") else name for name in self._names]

    def read(
        self,
        text: Sequence[int],
        number: Sequence[int] = (),
        *,
        rows: Collection[int] | None = None,
        limit: int | None = None,
    ) -> Block:
        """As ``Table.read``; columns of other types than text or numbers are a FaultError."""
        kept: list[int] = []
        texts: list[list[str]] = []
        values = [np.empty((0, len(number)), np.float32)]
        with self._reading():
            file = self._open()
            start, names = 0, [self._names[n] for n in (*text, *number)]
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=names)
                numbered = range(start + 1, start + 1 + table.num_rows)
                start += table.num_rows
                places = [n for n, row in enumerate(numbered) if rows is None or row in rows]
                columns = [self._text(table, n) for n in text]
                texts += [[column[place] for column in columns] for place in places]
                kept += [numbered[place] for place in places]
                part = np.empty((len(places), len(number)), np.float32)
                for at, n in enumerate(number):
                    part[:, at] = self._numbers(table, n)[places]
                values.append(part)
            if start != file.metadata.num_rows:
                expected = f"{file.metadata.num_rows} as the file declares"
                raise FaultError.of("truncated-file", self.path, f"{start} rows", expected)
        return Block(kept[:limit], texts[:limit], np.concatenate(values)[:limit])

    def _open(self) -> Any:
        return self._arrow.parquet.ParquetFile(self.path, page_checksum_verification=True)

    def _text(self, table: Any, n: int) -> list[str]:
        column, types = table.column(self._names[n]), self._arrow.types
        kind = column.type.value_type if types.is_dictionary(column.type) else column.type
        if not (types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind)):
            raise self._odd_type(n, column, "text")
        return ["" if cell is None else str(cell).strip() for cell in column.to_pylist()]

    def _numbers(self, table: Any, n: int) -> np.ndarray:
        column, types = table.column(self._names[n]), self._arrow.types
        kind = column.type
        if not (types.is_floating(kind) or types.is_integer(kind) or types.is_null(kind)):
            raise self._odd_type(n, column, "numbers")
        values = column.to_numpy(zero_copy_only=False)
        with np.errstate(over="ignore"):  # infinite values are reported by later checks
            return values.astype(np.float32)

    def _odd_type(self, n: int, column: Any, expected: str) -> Exception:
        found = f"column '{self.header[n]}' of type {column.type}"
        return FaultError.of("unreadable-file", self.path, found, f"{expected} in it")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (*DAMAGE_ERRORS, self._arrow.ArrowException) as error:
            kind = "missing-file" if isinstance(error, FileNotFoundError) else "unreadable-file"
            expected = "a complete Parquet file"
            raise FaultError.of(kind, self.path, one_line(error), expected) from error


def is_parquet(path: Path) -> bool:
    """True if a file is named as Parquet, or is Parquet under another name."""
    return path.suffix.lower() in (".parquet", ".pq") or _begins_as_parquet(path)


def _begins_as_parquet(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(PARQUET)) == PARQUET
    except OSError:
        return False  # a reader that opens it reports why


def _pyarrow(path: Path) -> ModuleType:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_library("pyarrow", path, error) from error
    return pyarrow


def _index_of(schema: Any) -> list[str]:
    """Columns that were the index of a pandas table."""
    facts = schema.pandas_metadata or {}
    index = facts.get("index_columns", []) if isinstance(facts, dict) else []
    return [name for name in index if isinstance(name, str) and name in schema.names]
