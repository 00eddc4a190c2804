"""Zarr groups with the arrays and attributes of CLAM, TRIDENT or STAMP files."""

from __future__ import annotations

import contextlib
import logging
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gimp_fast.data.slides.groups import GroupSlide
from gimp_fast.data.slides.zarr_shards import count_unwritten
from gimp_fast.errors import DAMAGE_ERRORS, FaultError, missing_library, one_line
from gimp_fast.files.hdf5 import LARGEST_CHUNK
from gimp_fast.files.paths import OUTSIDE

_ZARR_ERRORS = (*DAMAGE_ERRORS, zlib.error, zipfile.BadZipFile)


class _OneError(logging.Filter):
    """Without asyncio's traceback of a second damaged array: the first one is the error."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return not ("never retrieved" in text and "zarr" in text)


_ONE_ERROR = _OneError()


class ZarrSlide(GroupSlide):
    """An open ``.zarr`` folder or ``.zarr.zip``; see ``open_slide``."""

    kind = "zarr"

    def _open(self, path: Path, undo: contextlib.ExitStack) -> tuple[Mapping, Mapping]:
        import zarr

        logging.getLogger("asyncio").addFilter(_ONE_ERROR)  # once, however often it is called
        store = str(path)
        if path.is_dir():
            _check_folder(path)
        else:
            _check_members(path)
            store = undo.enter_context(zarr.storage.ZipStore(store, mode="r"))
        # Consolidated metadata is a second description of the arrays, which may name other paths.
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # about files that belong to no array: nobody reads them
            group = zarr.open_group(store, mode="r", use_consolidated=False)
            return dict(group.arrays()), group.attrs

    def _check(self, where: str, array: Any) -> None:
        if _runs_code(array.metadata.to_dict()):
            found = "chunks that are pickles, which may run code; they were not read"
            raise FaultError.of("unsafe-pickle", where, found, "chunks of plain numbers")
        if not array.size:
            return
        if np.prod(array.chunks, dtype=float) * array.dtype.itemsize > LARGEST_CHUNK:
            found = f"chunks of {array.chunks}"
            raise FaultError.of("unreadable-file", where, found, "chunks below 1 GiB")
        unwritten, chunks = count_unwritten(where, array)
        if unwritten:
            found = f"{chunks - unwritten} of {chunks} chunks written"
            raise FaultError.of("truncated-file", where, found, "every declared row to be stored")

    def _is_encoded(self, array: Any) -> bool:
        return True

    @contextlib.contextmanager
    def _errors(self, path: Path) -> Iterator[None]:
        try:
            yield
        except ModuleNotFoundError as error:
            raise missing_library("zarr", path, error) from error
        except _ZARR_ERRORS as error:
            raise FaultError.of("unreadable-file", path, one_line(error), "a Zarr group") from error


def _check_folder(path: Path) -> None:
    """FaultError if a name in the folder leads out of it, or is no file of numbers."""
    whole = path.resolve()
    for inside in path.rglob("*"):
        if inside.is_symlink() and not inside.resolve().is_relative_to(whole):
            found = f"a link to {inside.resolve()}"
            raise FaultError.of(OUTSIDE, inside, found, "a file inside the Zarr folder")
        if not inside.is_file() and not inside.is_dir():
            raise FaultError.of("unreadable-file", inside, "no regular file", "a file of a Zarr")


def _check_members(path: Path) -> None:
    """FaultError if a name in the archive leads out of it, or holds more than a chunk may."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    for member in members:
        where = f"{path}[{member.filename!r:.100}]"
        parts = member.filename.replace("\\", "/").rstrip("/").split("/")
        if not all(part not in ("", ".", "..") for part in parts):
            expected = "a name inside the archive"
            raise FaultError.of(OUTSIDE, where, "a name that leads out of it", expected)
        if member.compress_type != zipfile.ZIP_STORED and member.file_size > LARGEST_CHUNK:
            found = f"{member.file_size} bytes from {member.compress_size}"
            raise FaultError.of("unreadable-file", where, found, "compressed files below 1 GiB")


def _runs_code(metadata: Any) -> bool:
    """True if a codec anywhere in the description of an array is Python's pickle.

    zarr 3.0 opens such an array, and numcodecs before 0.16 runs what is in it.
    """
    if isinstance(metadata, Mapping):
        names = (metadata.get("id"), metadata.get("name"))
        if any(isinstance(name, str) and name.split(".")[-1] == "pickle" for name in names):
            return True
        return any(map(_runs_code, metadata.values()))
    if isinstance(metadata, (list, tuple)):
        return any(map(_runs_code, metadata))
    return hasattr(metadata, "codec_id") and metadata.codec_id == "pickle"
