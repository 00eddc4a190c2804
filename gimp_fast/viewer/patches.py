"""The patches of a slide as typed arrays for a browser, from ``patches.csv``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from gimp_fast.errors import FaultError, one_line
from gimp_fast.heatmaps.options import EVEN
from gimp_fast.heatmaps.scales import ColourScale

FLOATS = ("x", "y", "attention", "times_even", "percentile", "even_place")
INTEGERS = ("row", "rank")
_READ = (*FLOATS[:-1], *INTEGERS)
_EXPECTED = "the table of patches that `gimp-fast heatmap` wrote"


@dataclass(frozen=True)
class Patches:
    """The N patches of a slide, in the order of the table.

    Attributes:
        columns: (N,) float32 each of ``FLOATS``, x and y NaN where not known, and (N,) int32 each
            of ``INTEGERS``, row −1 where not known. ``even_place`` is the place of ``times_even``
            on the bar of colours, 0 … 100.
    """

    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.columns["rank"])

    def to_bytes(self) -> bytes:
        """Little-endian float32 columns, then int32 columns, each N long, one after the other."""
        parts = [self.columns[name].astype("<f4").tobytes() for name in FLOATS]
        parts += [self.columns[name].astype("<i4").tobytes() for name in INTEGERS]
        return b"".join(parts)

    def highest(self, count: int) -> np.ndarray:
        """Places of the highest patches in the table, the highest first."""
        return np.argsort(self.columns["rank"], kind="stable")[:count]


def read_patches(file: Path) -> Patches:
    """The patches of a slide's table.

    Raises:
        FaultError: a column is missing, holds text for a number or a gap, or ranks are not 1 to N.
    """
    try:
        table = pd.read_csv(file, usecols=list(_READ), dtype=dict.fromkeys(_READ, float))
    except (ValueError, OSError) as error:  # also of pandas: empty, ragged, not UTF-8
        raise FaultError.of("unreadable-table", file, one_line(error), _EXPECTED) from error
    known = ("attention", "times_even", "percentile", "rank")
    gaps = [name for name in known if not np.isfinite(table[name]).all()]
    if gaps:
        raise FaultError.of("not-a-number", file, f"gaps in {', '.join(gaps)}", _EXPECTED)
    ranks = np.sort(table["rank"].to_numpy())
    if not np.array_equal(ranks, np.arange(1, len(ranks) + 1)):
        found = f"ranks that are not 1 to {len(ranks)}"
        raise FaultError.of("wrong-rank", file, found, _EXPECTED)
    # Infinite places would make a page zoom to nowhere.
    table[["x", "y"]] = table[["x", "y"]].where(np.isfinite(table[["x", "y"]]).all(axis=1))
    table["even_place"] = ColourScale(EVEN, "", (), ()).places(table)
    table["row"] = table["row"].fillna(-1)
    columns = {name: table[name].to_numpy(np.float32) for name in FLOATS}
    columns |= {name: table[name].to_numpy(np.int32) for name in INTEGERS}
    return Patches(columns)
