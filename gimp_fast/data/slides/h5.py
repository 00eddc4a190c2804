"""HDF5 feature files of CLAM, TRIDENT and STAMP."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import h5py
from h5py import h5d

from gimp_fast.data.slides.base import FEATURE_DATASETS
from gimp_fast.data.slides.groups import GroupSlide
from gimp_fast.errors import FaultError
from gimp_fast.files.hdf5 import FLOATS, check_stored, has_type, hdf5_errors, member


class H5Slide(GroupSlide):
    """An open ``.h5``; see ``open_slide``."""

    kind = "h5"

    def _open(self, path: Path, undo: ExitStack) -> tuple[Mapping, Mapping]:
        file = undo.enter_context(h5py.File(path, "r"))
        wanted = (*FEATURE_DATASETS, "coords")
        # Others are not opened: only their names are reported if there are no features.
        arrays = {name: member(file, name) if name in wanted else None for name in file}
        return arrays, file.attrs

    def _is_allocated_ahead(self, array: h5py.Dataset) -> bool:
        return array.id.get_create_plist().get_alloc_time() == h5d.ALLOC_TIME_EARLY

    def _is_encoded(self, array: h5py.Dataset) -> bool:
        return array.id.get_create_plist().get_nfilters() > 0

    def _check(self, where: str, array: h5py.Dataset) -> None:
        if array is self._features and not has_type(array, FLOATS):
            expected = "little-endian IEEE float16, float32 or float64"
            raise FaultError.of("feature-dtype", where, f"an unusual {array.dtype}", expected)
        check_stored(where, array)

    def _errors(self, path: Path) -> AbstractContextManager:
        return hdf5_errors(path, "a complete HDF5 file")
