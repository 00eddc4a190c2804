"""Tensor feature files, ``.pt``: bare (N, C), or a dictionary with features and coordinates."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np

from gimp_fast.data.slides.base import (
    FEATURE_DATASETS,
    SlideFile,
    SlideInfo,
    check_coords,
    table_shape,
)
from gimp_fast.errors import DAMAGE_ERRORS, FaultError, one_line

# Parts of the restricted unpickler's message for a pickle that names other code.
_UNSAFE_SIGNS = ("nsupported global", "nsupported GLOBAL", "nsupported class", "Trying to ")
# What the restricted unpickler raises on arbitrary bytes.
UNPICKLING_ERRORS = (*DAMAGE_ERRORS, pickle.UnpicklingError, struct.error)


class PtSlide(SlideFile):
    """An open ``.pt``; see ``open_slide``."""

    def __init__(self, path: Path):
        with path.open("rb") as file:
            self._zipped = file.read(4) == b"PK\x03\x04"
        loaded = _load(path, self._zipped)
        name, table, coords = _pick_tensors(path, loaded)
        where = f"{path}[{name}]" if name else str(path)
        rows, dim = table_shape(where, tuple(table.shape))
        if not self._zipped:
            _check_storage(where, table)
        self._table = table.detach().reshape(rows, dim)
        self._coords = None if coords is None else coords.detach().reshape(-1, coords.shape[-1])
        if coords is not None:
            check_coords(f"{path}[coords]", tuple(self._coords.shape), rows)
        dtypes = [str(x.dtype).removeprefix("torch.") for x in (table, coords) if x is not None]
        super().__init__(SlideInfo(path, "pt", name, rows, dim, *dtypes))

    def _read(self, start: int, stop: int) -> np.ndarray:
        # A copy, which outlives the memory map and is writable.
        return self._table[start:stop].float().clone().numpy()

    def coords(self) -> np.ndarray | None:
        return None if self._coords is None else self._coords.clone().numpy()

    def verify(self) -> None:
        """Check the CRC of every member of the archive; files of torch before 1.6 have none."""
        if not self._zipped:
            return
        path = self.info.path
        try:
            with zipfile.ZipFile(path) as archive:
                bad = archive.testzip()
        except (*UNPICKLING_ERRORS, zipfile.BadZipFile) as error:
            raise FaultError.of("checksum", path, one_line(error), "an intact archive") from error
        if bad is not None:
            found = f"content of '{bad}' that does not match its checksum"
            raise FaultError.of("checksum", path, found, "the tensor as it was saved")


def _check_storage(where: str, table) -> None:
    """FaultError if numbers of the storage are left out, which a damaged shape does.

    Files of torch before 1.6 have no checksum that would find it.
    """
    held, used = table.untyped_storage().nbytes(), table.numel() * table.element_size()
    if held != used or not table.is_contiguous():
        found = f"a table of {used} bytes in a storage of {held}"
        expected = "a contiguous table that fills its storage"
        raise FaultError.of("feature-shape", where, found, expected)


def _load(path: Path, zipped: bool) -> object:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about foreign pickles, which are refused anyway
            # Files written before torch 1.6 are no zip archives and cannot be mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except UNPICKLING_ERRORS as error:
        text = one_line(error)
        if any(sign in str(error) for sign in _UNSAFE_SIGNS):
            found = "a pickle that asks to run code; it was not run"
            expected = "a plain tensor (torch.save)"
            raise FaultError.of("unsafe-pickle", path, found, expected) from error
        kind = "truncated-file" if "central directory" in text else "unreadable-file"
        raise FaultError.of(kind, path, text, "a tensor written by torch.save") from error


def _pick_tensors(path: Path, loaded: object) -> tuple:
    """(name, features, coords or None) from a bare tensor or a dictionary of tensors."""
    import torch

    name, table, coords = "", loaded, None
    if isinstance(loaded, dict):
        name = next((key for key in FEATURE_DATASETS if key in loaded), "")
        table, coords = loaded.get(name), loaded.get("coords")
    plain = isinstance(table, torch.Tensor) and table.layout == torch.strided
    if not plain or table.is_quantized or table.device.type != "cpu":
        found = f"a {type(loaded).__name__}"
        if isinstance(loaded, dict):
            found = f"a dictionary with keys {sorted(map(str, loaded))[:6]}"
        raise FaultError.of("no-features", path, found, "a bare tensor (N, C)")
    if not table.is_floating_point():
        raise FaultError.of("feature-dtype", path, str(table.dtype), "floating-point features")
    if not isinstance(coords, torch.Tensor) or coords.ndim < 2 or coords.dtype.is_complex:
        coords = None
    return name, table, coords
