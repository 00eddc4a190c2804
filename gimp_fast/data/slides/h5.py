"""HDF5 feature files of CLAM, TRIDENT and STAMP."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from h5py import h5t

from gimp_fast.data.slides.base import SlideFile
from gimp_fast.data.slides.groups import as_float32, describe, find_features, rows_of
from gimp_fast.errors import FaultError, one_line

_H5_ERRORS = (OSError, KeyError, RuntimeError, ValueError, TypeError, MemoryError, AttributeError)
# HDF5 describes a float by its bit fields. A damaged description is another float, read without a
# word; nobody writes features in any but these.
_FLOATS = (h5t.IEEE_F16LE, h5t.IEEE_F32LE, h5t.IEEE_F64LE)
_LARGEST_CHUNK = 1 << 30


class H5Slide(SlideFile):
    """An open ``.h5``; see ``open_slide``."""

    def __init__(self, path: Path):
        with contextlib.ExitStack() as undo, _h5_errors(path):
            self._file = undo.enter_context(h5py.File(path, "r"))
            name, self._features = find_features(path, self._file, h5py.Dataset)
            coords = self._file.get("coords")
            self._coords = coords if isinstance(coords, h5py.Dataset) else None
            attributes = self._file.attrs
            info = describe(path, "h5", name, self._features, self._coords, attributes)
            _check_storage(info.where, self._features)
            if info.has_coords:
                _check_stored(f"{path}[coords]", self._coords)
            super().__init__(info)
            undo.pop_all()

    def _read(self, start: int, stop: int) -> np.ndarray:
        with _h5_errors(self.info.path):
            return as_float32(rows_of(self._features, start, stop))

    def coords(self) -> np.ndarray | None:
        if not self.info.has_coords:
            return None
        with _h5_errors(self.info.path):
            return rows_of(self._coords, 0, self.info.num_patches)

    def close(self) -> None:
        self._file.close()


def _check_storage(where: str, features: h5py.Dataset) -> None:
    if not any(features.id.get_type() == known for known in _FLOATS):
        expected = "little-endian IEEE float16, float32 or float64"
        raise FaultError.of("feature-dtype", where, f"an unusual {features.dtype}", expected)
    _check_stored(where, features)


def _check_stored(where: str, array: h5py.Dataset) -> None:
    """HDF5 gives zeros for rows that were declared and never written: an interrupted extraction."""
    if array.external is not None or not array.size:
        return
    expected = "every declared row to be stored"
    if array.chunks is None:
        size, stored = array.size * array.dtype.itemsize, array.id.get_storage_size()
        if stored != size:
            found = f"{stored} of {size} bytes written"
            raise FaultError.of("truncated-file", where, found, expected)
        return
    if math.prod(array.chunks) * array.dtype.itemsize > _LARGEST_CHUNK:
        found = f"chunks of {array.chunks}"
        raise FaultError.of("unreadable-file", where, found, "chunks below 1 GiB")
    pairs = zip(array.shape, array.chunks, strict=True)
    chunks, stored = (
        math.prod(-(-side // chunk) for side, chunk in pairs),
        array.id.get_num_chunks(),
    )
    if stored < chunks:
        raise FaultError.of(
            "truncated-file", where, f"{stored} of {chunks} chunks written", expected
        )


@contextlib.contextmanager
def _h5_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except _H5_ERRORS as error:
        text = one_line(error)
        kind = "truncated-file" if "truncated file" in text else "unreadable-file"
        raise FaultError.of(kind, path, text, "a complete HDF5 file") from error
