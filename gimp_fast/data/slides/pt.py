"""Tensor feature files, ``.pt``: bare (N, C), or a dictionary with features and coordinates."""

from __future__ import annotations

import contextlib
import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gimp_fast.data.slides.base import (
    FEATURE_DATASETS,
    SlideFile,
    SlideInfo,
    check_coords,
    short_coords_note,
    table_shape,
)
from gimp_fast.errors import DAMAGE_ERRORS, FaultError, one_line
from gimp_fast.files.pickles import code_in_pickle, pickle_protocol

# What the restricted unpickler raises on arbitrary bytes.
UNPICKLING_ERRORS = (*DAMAGE_ERRORS, pickle.UnpicklingError, struct.error)
_NEWEST_PROTOCOL = 3  # that the restricted unpickler reads; torch.save writes 2


class PtSlide(SlideFile):
    """An open ``.pt``; see ``open_slide``."""

    def __init__(self, path: Path):
        with _errors(path):
            with path.open("rb") as file:
                self._zipped = file.read(4) == b"PK\x03\x04"
            name, table, coords = _pick_tensors(path, _load(path, self._zipped))
            where = f"{path}[{name}]" if name else str(path)
            rows, dim = table_shape(where, tuple(table.shape))
            _check_layout(where, table)
            if not self._zipped:
                _check_storage(where, table)
            self._table = table.detach().resolve_neg().reshape(rows, dim)
            self._coords, note = _numbers(f"{path}[coords]", coords, rows)
        dtypes = [str(table.dtype).removeprefix("torch."), ""]
        if self._coords is not None:
            dtypes[1] = str(self._coords.dtype)
        super().__init__(SlideInfo(path, "pt", name, rows, dim, *dtypes, coords_note=note))

    def _read(self, start: int, stop: int) -> np.ndarray:
        with _errors(self.info.path):
            # A copy, which outlives the memory map and is writable.
            return self._table[start:stop].float().clone().numpy()

    def coords(self) -> np.ndarray | None:
        return None if self._coords is None else self._coords.copy()

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


@contextlib.contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turns what torch raises for a tensor that it cannot use into a FaultError."""
    try:
        yield
    except DAMAGE_ERRORS as error:
        expected = "a tensor written by torch.save"
        raise FaultError.of("unreadable-file", path, one_line(error), expected) from error


def _numbers(where: str, coords, rows: int) -> tuple[np.ndarray | None, str]:
    """(N, 2 or more) coordinates; or None, and why those in the file are not used."""
    import torch

    if coords is None:
        return None, ""
    kind = _unusual(coords)
    if not kind and (coords.ndim < 2 or not _holds_places(coords.dtype)):
        kind = f"{coords.dtype} {tuple(coords.shape)}".removeprefix("torch.")
    if kind:
        return None, f"coordinates that are {kind}, not numbers (N, 2)"
    check_coords(where, tuple(coords.shape), rows)
    _check_layout(where, coords, "coords-shape")
    coords = coords.detach().resolve_neg().reshape(rows, coords.shape[-1])
    dtype = str(coords.dtype).removeprefix("torch.")
    values = (coords.float() if coords.dtype == torch.bfloat16 else coords).clone().numpy()
    note = short_coords_note(values, dtype)
    return (None, note) if note else (values, "")


def _holds_places(dtype) -> bool:
    """True for integers, and for floats of two bytes or more."""
    import torch

    is_float = dtype.is_floating_point and dtype.itemsize > 1
    return is_float or not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


def _unusual(tensor) -> str:
    """What kind of tensor this is, if it is not a plain table of numbers in memory."""
    import torch

    if not isinstance(tensor, torch.Tensor):
        return f"a {type(tensor).__name__}"
    signs = {
        "a nested tensor": tensor.is_nested,
        "a sparse tensor": tensor.layout != torch.strided,
        "a quantised tensor": tensor.is_quantized,
        "a tensor without values (device 'meta')": tensor.device.type == "meta",
        f"a tensor on '{tensor.device.type}'": tensor.device.type != "cpu",
    }
    return next((text for text, is_so in signs.items() if is_so), "")


def _check_layout(where: str, table, kind: str = "feature-shape") -> None:
    """FaultError if two numbers of the table share their place, as in an expanded tensor.

    A file of a few bytes can declare any number of rows in this way.
    """
    reach = 1
    sides = [(n, size) for n, size in zip(table.stride(), table.shape, strict=True) if size > 1]
    for stride, size in sorted(sides) if table.numel() else ():
        if stride < reach:
            found = f"a table {tuple(table.shape)} with strides {tuple(table.stride())}"
            expected = "a number of its own for each place; save tensor.contiguous()"
            raise FaultError.of(kind, where, f"{found}, whose rows overlap", expected)
        reach += (size - 1) * stride


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
        raise load_fault(path, error, "a plain tensor (torch.save)") from error


def load_fault(path: Path, error: Exception, expected: str) -> FaultError:
    """The fault of a file that torch.load refused, with or without the code that it asks for."""
    text = one_line(error)
    if (detail := "WeightsUnpickler error: ") in str(error):  # after advice that is not for users
        text = " ".join(str(error).split(detail, 1)[1].split())[:200]
    if name := code_in_pickle(path):
        found = f"a pickle that asks to run code ({name[:80]!a}); it was not run"
        return FaultError.of("unsafe-pickle", path, found, expected)
    if (protocol := pickle_protocol(path)) > _NEWEST_PROTOCOL:
        found = f"a pickle of protocol {protocol}, which torch cannot read safely; it was not run"
        expected += ", saved again with torch's default protocol"
        return FaultError.of("unsafe-pickle", path, found, expected)
    kind = "truncated-file" if "central directory" in text else "unreadable-file"
    return FaultError.of(kind, path, text, expected)


def _pick_tensors(path: Path, loaded: object) -> tuple:
    """(name, features, coords or None) from a bare tensor or a dictionary of tensors."""
    name, table, coords = "", loaded, None
    if isinstance(loaded, dict):
        name = next((key for key in FEATURE_DATASETS if key in loaded), "")
        table, coords = loaded.get(name), loaded.get("coords")
    if unusual := _unusual(table):
        found = unusual
        if isinstance(loaded, dict) and table is None:
            found = f"a dictionary with keys {sorted(map(str, loaded))[:6]}"
        raise FaultError.of("no-features", path, found, "a bare tensor (N, C)")
    if not table.is_floating_point():
        raise FaultError.of("feature-dtype", path, str(table.dtype), "floating-point features")
    return name, table, coords
