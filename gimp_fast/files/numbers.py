"""Numbers in the cells of text tables: what counts as one, and what says that there is none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gimp_fast.errors import FaultError

# How R, pandas and spreadsheets write that there is no value.
MISSING = frozenset({"", "NA", "N/A", "#N/A", "<NA>", "NaN", "nan"})
# These can be the name of a class, but where a number should be they mean that there is none.
MISSING_NUMBERS = MISSING | {"na", "null", "NULL", "None", "."}
# 1,234.5 or 1.234,5 or 1 234 or 1'234 or 1,5: which of them a reader cannot always tell.
_GROUPED = re.compile(r"[+-]?\d+(?:[.,'’ \u00a0\u202f]\d+)+(?:[eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+")
_CLEAR = "clear"  # some comma cannot separate thousands


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
        if _GROUPED.fullmatch(cell.strip()):
            expected = "digits and a decimal point, such as 1234.5, without thousands separators"
        raise FaultError.of("unreadable-file", where, found, expected) from error


class DecimalComma:
    """Numbers of a table with semicolons, in which R's write.csv2 writes 1,5 for 1.5.

    Where a comma or a point may separate thousands, the table is refused.
    """

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}  # "," or "." -> the first cell that has it
        self.thousands = ""  # the first cell with a comma, while all may be thousands

    def replaced(self, cells: list[str], where: str) -> list[str]:
        """The cells of one row, with decimal points."""
        with_comma = [cell.strip() for cell in cells if "," in cell]
        with_point = [cell for cell in cells if "." in cell and cell.strip() != "."]
        for mark, found in ((",", with_comma), (".", with_point)):
            if found:
                self.seen.setdefault(mark, found[0].strip())
        if len(self.seen) == 2:
            found = f"both decimal commas and points ('{self.seen[',']}', '{self.seen['.']}')"
            expected = "one of them, and no thousands separators"
            raise FaultError.of("unreadable-file", where, found[:200], expected)
        if with_comma and self.thousands != _CLEAR:
            clear = any(not _THOUSANDS.fullmatch(cell) for cell in with_comma)
            self.thousands = _CLEAR if clear else self.seen[","]
        return [cell.replace(",", ".") for cell in cells] if with_comma else cells

    def check(self, path: Path) -> None:
        """FaultError if every comma may separate thousands."""
        if self.thousands not in ("", _CLEAR):
            found = f"numbers such as '{self.thousands[:60]}': each comma may separate thousands"
            expected = "decimal points, or numbers without thousands separators"
            raise FaultError.of("unreadable-file", path, found, expected)


def parse_numbers(cells: Sequence[str], names: Sequence[str], where: str) -> np.ndarray:
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
