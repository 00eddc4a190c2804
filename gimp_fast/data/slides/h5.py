"""HDF5 feature files of CLAM, TRIDENT and STAMP."""

from __future__ import annotations

import contextlib
from pathlib import Path

import h5py
import numpy as np

from gimp_fast.data.slides.base import SlideFile
from gimp_fast.data.slides.groups import as_float32, describe, find_features, rows_of
from gimp_fast.errors import FaultError
from gimp_fast.files.hdf5 import FLOATS, check_stored, has_type, hdf5_errors

_WHOLE = "a complete HDF5 file"


class H5Slide(SlideFile):
    """An open ``.h5``; see ``open_slide``."""

    def __init__(self, path: Path):
        with contextlib.ExitStack() as undo, hdf5_errors(path, _WHOLE):
            self._file = undo.enter_context(h5py.File(path, "r"))
            name, self._features = find_features(path, self._file, h5py.Dataset)
            coords = self._file.get("coords")
            self._coords = coords if isinstance(coords, h5py.Dataset) else None
            info = describe(path, "h5", name, self._features, self._coords, self._file.attrs)
            if not has_type(self._features, FLOATS):
                found = f"an unusual {self._features.dtype}"
                expected = "little-endian IEEE float16, float32 or float64"
                raise FaultError.of("feature-dtype", info.where, found, expected)
            # Rows that were declared and never written: an interrupted extraction.
            check_stored(info.where, self._features, allow_external=True)
            if info.has_coords:
                check_stored(f"{path}[coords]", self._coords, allow_external=True)
            super().__init__(info)
            undo.pop_all()

    def _read(self, start: int, stop: int) -> np.ndarray:
        with hdf5_errors(self.info.path, _WHOLE):
            return as_float32(rows_of(self._features, start, stop))

    def coords(self) -> np.ndarray | None:
        if not self.info.has_coords:
            return None
        with hdf5_errors(self.info.path, _WHOLE):
            return rows_of(self._coords, 0, self.info.num_patches)

    def close(self) -> None:
        self._file.close()
