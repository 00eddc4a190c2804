"""Zarr groups with the arrays and attributes of CLAM, TRIDENT or STAMP files."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gimp_fast.data.slides.groups import GroupSlide
from gimp_fast.errors import DAMAGE_ERRORS, FaultError, missing_library, one_line
from gimp_fast.files.hdf5 import LARGEST_CHUNK

_ZARR_ERRORS = (*DAMAGE_ERRORS, zlib.error, zipfile.BadZipFile)


class ZarrSlide(GroupSlide):
    """An open ``.zarr`` folder or ``.zarr.zip``; see ``open_slide``."""

    kind = "zarr"

    def _open(self, path: Path, undo: contextlib.ExitStack) -> tuple[Mapping, Mapping]:
        import zarr

        store = str(path)
        if not path.is_dir():
            store = undo.enter_context(zarr.storage.ZipStore(store, mode="r"))
        group = zarr.open_group(store, mode="r")
        return dict(group.arrays()), group.attrs

    def _check(self, where: str, array: Any) -> None:
        if not array.size:
            return
        if np.prod(array.chunks, dtype=float) * array.dtype.itemsize > LARGEST_CHUNK:
            found = f"chunks of {array.chunks}"
            raise FaultError.of("unreadable-file", where, found, "chunks below 1 GiB")
        written = array.nchunks_initialized
        if written < array.nchunks:
            found = f"{written} of {array.nchunks} chunks written"
            raise FaultError.of("truncated-file", where, found, "every declared row to be stored")

    @contextlib.contextmanager
    def _errors(self, path: Path) -> Iterator[None]:
        try:
            yield
        except ModuleNotFoundError as error:
            raise missing_library("zarr", path, error) from error
        except _ZARR_ERRORS as error:
            raise FaultError.of("unreadable-file", path, one_line(error), "a Zarr group") from error
