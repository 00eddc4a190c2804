"""Text files of RNA-seq, read strictly. Anything wrong with a file is a FaultError that names it.

Numbers are parsed one cell at a time with ``float``: exactly rounded, and what is no number is
found with its row and column, which a fast csv reader would guess at or pad in silence.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gimp_fast.errors import FaultError

READ_ERRORS = (OSError, EOFError, ValueError, zlib.error, csv.Error)
LONGEST_LINE = 1 << 28  # bytes; a longer one is no table, and need not fit in memory
BOM = b"\xef\xbb\xbf"
MISSING = {b"", b"NA", b"N/A", b"#N/A", b"<NA>", b"na", b"null", b"NULL", b"None", b"."}
# Rows that aligners add below or above the genes.
_SUMMARY = re.compile(r"__.*|N_(?:unmapped|multimapping|noFeature|ambiguous)")
SUMMARY_REASON = "summary row of the aligner, not a gene"


def is_summary(gene_id: str) -> bool:
    """Whether a row's name is one that aligners give to reads outside genes."""
    return _SUMMARY.fullmatch(gene_id) is not None


def table_fault(path: Path, error: BaseException, expected: str) -> FaultError:
    """The fault behind an error of ``READ_ERRORS``."""
    text = " ".join(str(error).split())[:200]
    if isinstance(error, FileNotFoundError):
        kind = "missing-file"
    elif isinstance(error, EOFError):
        kind = "truncated-file"
    else:
        kind = "unreadable-file"
    return FaultError.of(kind, path, f"{type(error).__name__}: {text}", expected)


def need_library(name: str, path: Path, error: ImportError) -> FaultError:
    """The fault of an optional library that is not installed."""
    expected = f"{name}, from `pip install gimp-fast[formats]`"
    return FaultError.of("missing-library", path, f"{name} cannot be imported ({error})", expected)


def open_bytes(path: Path) -> BinaryIO:
    """The file's bytes, decompressed if it is a ``.gz``."""
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")


def read_bytes(path: Path, expected: str) -> bytes:
    """A whole text file.

    Raises:
        FaultError: unreadable, or its last line does not end: a number cut short is another number.
    """
    try:
        with open_bytes(path) as stream:
            data = stream.read()
    except READ_ERRORS as error:
        raise table_fault(path, error, expected) from error
    if b"\0" in data:
        raise _not_text(path, "NUL bytes")
    if data and not data.endswith(b"\n"):
        if path.suffix.lower() != ".gz":
            raise _unended(path)
        data += b"\n"  # the checksum of the .gz says that nothing is missing
    if not data.isascii():
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _not_text(path, f"bytes that are not UTF-8 at {error.start}") from error
    return data.removeprefix(BOM)


def read_lines(
    path: Path, expected: str, *, whole_lines: bool = True
) -> Iterator[tuple[int, bytes]]:
    """Lines of a text file with their numbers from 1, without line ends; blank lines left out.

    Args:
        path: a text file, or a ``.gz`` of one.
        expected: what a fault says should be there.
        whole_lines: whether a last line without its end is a fault.

    Raises:
        FaultError: unreadable, cut short, or not text.
    """
    try:
        with open_bytes(path) as stream:
            number, line = 0, b"\n"
            for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE), b""), 1):
                if number == 1:
                    line = line.removeprefix(BOM)
                text = line.removesuffix(b"\n").removesuffix(b"\r")
                if b"\0" in text or b"\r" in text:
                    odd = "NUL bytes" if b"\0" in text else "a carriage return inside a line"
                    raise _not_text(f"{path} row {number}", odd)
                if len(line) == LONGEST_LINE:
                    raise _not_text(f"{path} row {number}", f"{len(line)} bytes without line end")
                if text.strip(b" "):
                    yield number, text
        if whole_lines and not line.endswith(b"\n") and path.suffix.lower() != ".gz":
            raise _unended(path)
    except READ_ERRORS as error:
        raise table_fault(path, error, expected) from error


def _unended(path: Path) -> FaultError:
    found, expected = "a last line without its end", "a complete file, with a line end at the end"
    return FaultError.of("truncated-file", path, found, expected)


def _not_text(where: str | Path, found: str) -> FaultError:
    return FaultError.of(
        "unreadable-file", where, found, "plain UTF-8 text (not UTF-16, not binary)"
    )


def split_cells(line: bytes, delimiter: str, where: str) -> list[bytes]:
    """Cells of a line, quotes taken off; FaultError for quotes that do not match."""
    if b'"' not in line:
        return line.split(delimiter.encode())
    try:
        (cells,) = csv.reader([line.decode("utf-8")], delimiter=delimiter, strict=True)
    except (csv.Error, ValueError) as error:
        found = f"{type(error).__name__}: {error}"
        raise FaultError.of("unreadable-file", where, found, "quotes around whole cells") from error
    return [cell.encode() for cell in cells]


def decode(cell: bytes, where: str) -> str:
    """Stripped text of a cell; FaultError if it is not UTF-8."""
    try:
        return cell.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise _not_text(where, f"{cell[:40]!r}, which is not UTF-8") from error


def numbers(
    cells: Sequence[bytes], names: Sequence[str], where: str, *, underscores: bool = True
) -> np.ndarray:
    """Numbers (n,) float32 of one row; NaN where a cell says that there is none.

    Args:
        cells: n cells.
        names: n names of the cells, for faults.
        where: file and row, for faults.
        underscores: whether there may be any in the row; without, it is read faster.

    Raises:
        FaultError: a cell that is no number.
    """
    try:
        if underscores:  # float takes 1_000 for a number
            raise ValueError
        values = np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        values = np.array([number(*pair, where) for pair in zip(cells, names, strict=True)])
    with np.errstate(over="ignore"):  # too large for float32 is infinite, and a fault further on
        return values.astype(np.float32)


def number(cell: bytes, name: str, where: str) -> float:
    """One number; NaN for a cell that says there is none; FaultError for anything else."""
    if cell.strip() in MISSING:
        return float("nan")
    try:
        if b"_" in cell:
            raise ValueError
        return float(cell)
    except ValueError as error:
        raise _no_number(cell, name, where) from error


def _no_number(cell: bytes, name: str, where: str) -> FaultError:
    text = cell[:60].decode("utf-8", errors="replace").strip()
    found = f"'{text}' in column '{name}'"
    return FaultError.of("unreadable-file", where, found, "a number in every cell of expression")
