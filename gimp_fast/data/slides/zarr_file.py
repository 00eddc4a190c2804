"""Zarr groups with the arrays and attributes of CLAM, TRIDENT or STAMP files."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gimp_fast.data.slides.base import SlideFile
from gimp_fast.data.slides.groups import as_float32, describe, find_features, rows_of
from gimp_fast.errors import DAMAGE_ERRORS, FaultError, missing_library, one_line

_ZARR_ERRORS = (*DAMAGE_ERRORS, zlib.error, zipfile.BadZipFile)
_LARGEST_CHUNK = 1 << 30


class ZarrSlide(SlideFile):
    """An open ``.zarr`` folder or ``.zarr.zip``; see ``open_slide``."""

    def __init__(self, path: Path):
        with contextlib.ExitStack() as undo:
            with _zarr_errors(path):
                group = undo.enter_context(_group(path))
                arrays = dict(group.arrays())
                name, self._features = find_features(path, arrays, _array_type())
                self._coords = arrays.get("coords")
                info = describe(path, "zarr", name, self._features, self._coords, group.attrs)
                self._check_stored(info.where, self._features)
                if info.has_coords:
                    self._check_stored(f"{path}[coords]", self._coords)
            super().__init__(info)
            self._undo = undo.pop_all()

    @staticmethod
    def _check_stored(where: str, array) -> None:
        """Zarr reads rows that were never written as zeros: an interrupted extraction."""
        if not array.size:
            return
        if np.prod(array.chunks, dtype=float) * array.dtype.itemsize > _LARGEST_CHUNK:
            found = f"chunks of {array.chunks}"
            raise FaultError.of("unreadable-file", where, found, "chunks below 1 GiB")
        written = array.nchunks_initialized
        if written < array.nchunks:
            found = f"{written} of {array.nchunks} chunks written"
            raise FaultError.of("truncated-file", where, found, "every declared row to be stored")

    def _read(self, start: int, stop: int) -> np.ndarray:
        with _zarr_errors(self.info.path):
            return as_float32(np.asarray(rows_of(self._features, start, stop)))

    def coords(self) -> np.ndarray | None:
        if not self.info.has_coords:
            return None
        with _zarr_errors(self.info.path):
            return np.asarray(rows_of(self._coords, 0, self.info.num_patches))

    def close(self) -> None:
        self._undo.close()


@contextlib.contextmanager
def _group(path: Path) -> Iterator:
    import zarr

    if path.is_dir():
        yield zarr.open_group(str(path), mode="r")
        return
    with zarr.storage.ZipStore(str(path), mode="r") as store:
        yield zarr.open_group(store, mode="r")


def _array_type() -> type:
    import zarr

    return zarr.Array


@contextlib.contextmanager
def _zarr_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise missing_library("zarr", path, error) from error
    except _ZARR_ERRORS as error:
        raise FaultError.of("unreadable-file", path, one_line(error), "a Zarr group") from error
