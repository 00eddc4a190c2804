"""What all slide feature files have in common."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gimp_fast.errors import FaultError

FEATURE_DATASETS = ("features", "feats")
# A gap of up to so many rows is read along with its neighbours: a new read would cost more.
_READ_THROUGH = 32
# No encoder has nearly so many; one declared row must not need all memory.
_MOST_CHANNELS = 1 << 20
# Of 16-bit coordinates: type -> digits of its whole numbers, in bits.
_SHORT_COORDS = {"float16": 11, "bfloat16": 8}


@dataclass(frozen=True)
class SlideInfo:
    """What the header of a feature file says, without reading its rows.

    Attributes:
        format: ``clam-h5``, ``trident-h5``, ``stamp-h5``, the same with ``-zarr``, or ``pt``.
        dataset: dataset or dictionary key of the features; empty for a bare tensor.
        feature_dim: channels C; 0 if an empty file does not say.
        dtype: as stored; ``read`` always gives float32.
        coords_dtype: type of the patch coordinates in the file; empty if it has none.
        coords_note: why the coordinates in the file are not used; empty if they are.
        encoder, mpp, patch_size: the network that made the features, micrometres per pixel of the
            encoded patches, and their side in pixels, if recorded.
        patch_size_level0: the same side in pixels of level 0, the unit of the coordinates.
        patch_order: order of the rows, if recorded.
    """

    path: Path
    format: str
    dataset: str
    num_patches: int
    feature_dim: int
    dtype: str
    coords_dtype: str = ""
    coords_note: str = ""
    encoder: str | None = None
    mpp: float | None = None
    patch_size: int | None = None
    patch_size_level0: int | None = None
    patch_order: str | None = None

    @property
    def has_coords(self) -> bool:
        return bool(self.coords_dtype)

    @property
    def where(self) -> str:
        """The file, and the dataset in it."""
        return f"{self.path}[{self.dataset}]" if self.dataset else str(self.path)


class SlideFile(AbstractContextManager):
    """An open feature file. ``open_slide`` gives one.

    A format of your own fills ``info`` when it opens a file, and overrides ``_read(start, stop)``,
    rows as (stop - start, C) float32, and :meth:`coords`; see :func:`register_reader`.
    """

    unwritten: float | None = None  # what a format gives for rows that were never written
    allocated_ahead = False  # whether space on the disk does not show that anything was written

    def __init__(self, info: SlideInfo):
        self.info = info

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Read contiguous rows, and no other part of the file.

        Args:
            start: first row.
            stop: one past the last row; None for the end.

        Returns:
            (stop - start, C) float32.

        Raises:
            FaultError: the file cannot be read.
            ValueError: the range is not inside 0 … num_patches.
        """
        start, stop = check_range(start, stop, self.info.num_patches)
        if start == stop:
            return np.empty((0, self.info.feature_dim), np.float32)
        return self._read(start, stop)

    def read_rows(self, rows: np.ndarray) -> np.ndarray:
        """Read rows in any order, in few contiguous reads.

        Args:
            rows: (n,) distinct row numbers.

        Returns:
            (n, C) float32.
        """
        out = np.empty((len(rows), self.info.feature_dim), np.float32)
        order = np.argsort(rows, kind="stable")
        rising = np.asarray(rows)[order]
        runs = np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rising) > _READ_THROUGH) + 1)
        for run in runs if len(rows) else ():
            first, last = int(rising[run[0]]), int(rising[run[-1]])
            out[order[run]] = self.read(first, last + 1)[rising[run] - first]
        return out

    def coords(self) -> np.ndarray | None:
        """Patch positions (N, 2) as stored (level-0 pixels; micrometres in STAMP), or None."""
        raise NotImplementedError

    def verify(self) -> None:
        """Check those checksums of the format that reading does not check.

        Raises:
            FaultError: the content does not match them.
        """

    def _read(self, start: int, stop: int) -> np.ndarray:
        raise NotImplementedError

    def close(self) -> None:
        """Release the file."""

    def __exit__(self, *exception: object) -> None:
        self.close()


def check_range(start: int, stop: int | None, length: int) -> tuple[int, int]:
    """Resolve and check a row range; ValueError names what is wrong."""
    stop = length if stop is None else stop
    if not 0 <= start <= stop <= length:
        raise ValueError(f"rows {start}:{stop} are not inside 0:{length}")
    return start, stop


def table_shape(where: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """(N, C) of a table stored as (N, C), (1, N, C), or (0,) for an empty slide."""
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if tuple(shape) == (0,):
        return 0, 0
    if len(shape) != 2 or not 0 < shape[1] <= _MOST_CHANNELS:
        expected = f"(N, C) or (1, N, C), C up to {_MOST_CHANNELS}"
        raise FaultError.of("feature-shape", where, f"shape {tuple(shape)}", expected)
    return int(shape[0]), int(shape[1])


def check_coords(where: str, shape: tuple[int, ...], rows: int) -> None:
    """FaultError unless there are two coordinates, or more, for every row."""
    table = tuple(shape[1:] if len(shape) == 3 and shape[0] == 1 else shape)
    if len(table) != 2 or table[0] != rows or table[1] < 2:
        raise FaultError.of("coords-shape", where, f"shape {tuple(shape)}", f"({rows}, 2)")


def short_coords_note(coords: np.ndarray, dtype: str) -> str:
    """Why coordinates of a 16-bit type cannot be used; empty if they can.

    A bfloat16 has 8 binary digits: 300 is stored as 300, and 30,100 as 30,080. Coordinates are
    exact if they are small whole numbers. They also are if all lie on a grid that is twice as
    coarse as what the type can tell apart: rounding would have left some between the grid's lines.

    Args:
        coords: (N, 2 or more), of any type that holds the values.
        dtype: as stored.
    """
    bits = _SHORT_COORDS.get(dtype)
    if bits is None or not coords.size:
        return ""
    values = np.abs(np.asarray(coords, np.float64)[:, :2])
    largest = values.max()
    if np.isfinite(largest):
        step = 2.0 ** (np.frexp(largest)[1] - bits)  # between neighbouring numbers of the type
        if not (values % (1.0 if largest <= 2**bits else 2 * step)).any():
            return ""
    return f"{dtype} coordinates, which are exact up to {2**bits} only"
