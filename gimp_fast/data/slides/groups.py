"""What HDF5 and Zarr files of slides share: named arrays with attributes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gimp_fast.data.slides.base import (
    FEATURE_DATASETS,
    SlideFile,
    SlideInfo,
    check_coords,
    short_coords_note,
    table_shape,
)
from gimp_fast.errors import FaultError
from gimp_fast.files.hdf5 import LARGEST_CHUNK

_SMALL_CHUNK = 1 << 20  # bytes; the libraries keep such chunks themselves


class GroupSlide(SlideFile):
    """A file of named arrays; a format opens it, checks its arrays and translates its errors."""

    kind: str

    def __init__(self, path: Path):
        with self._errors(path), contextlib.ExitStack() as undo:
            arrays, attributes = self._open(path, undo)
            name, self._features = _find_features(path, arrays)
            self._coords = arrays.get("coords")
            info = _describe(path, self.kind, name, self._features, self._coords, attributes)
            self._check(info.where, self._features)
            self.unwritten = _fill_value(self._features)
            self.allocated_ahead = self._is_allocated_ahead(self._features)
            self._chunk_rows = self._rows_to_keep()
            self._kept: tuple[int, np.ndarray] | None = None
            super().__init__(info)
            if info.has_coords:
                self._check(f"{path}[coords]", self._coords)
                self._leave_short_coords()
            self._undo = undo.pop_all()

    def _open(self, path: Path, undo: contextlib.ExitStack) -> tuple[Mapping, Mapping]:
        """The arrays, and the attributes of the file, which ``undo`` closes."""
        raise NotImplementedError

    def _check(self, where: str, array: Any) -> None:
        """FaultError for rows that were declared and never written: an interrupted extraction."""
        raise NotImplementedError

    def _is_allocated_ahead(self, array: Any) -> bool:
        """Whether the array got its space when it was declared, and not when it was written."""
        return False

    def _is_encoded(self, array: Any) -> bool:
        """Whether a chunk of the array must be decoded as a whole to read a part of it."""
        raise NotImplementedError

    def _errors(self, path: Path) -> AbstractContextManager:
        """Turns what the library raises for a damaged file into a FaultError."""
        raise NotImplementedError

    def _read(self, start: int, stop: int) -> np.ndarray:
        with self._errors(self.info.path), np.errstate(over="ignore"):
            # Values beyond float32 become infinite, which checks report.
            return self._feature_rows(start, stop).astype(np.float32, copy=False)

    def _feature_rows(self, start: int, stop: int) -> np.ndarray:
        """(stop - start, C) as stored; a large chunk is decoded once, not for each part of it."""
        size = self._chunk_rows
        if not size:
            return _rows_of(self._features, start, stop)
        parts = []
        for number in range(start // size, -(-stop // size)):
            first = number * size
            if self._kept is None or self._kept[0] != number:
                self._kept = None  # frees the memory before more is used
                last = min(first + size, self.info.num_patches)
                self._kept = number, _rows_of(self._features, first, last)
            parts.append(self._kept[1][max(start - first, 0) : stop - first])
        return np.concatenate(parts)  # a copy: what is kept must not be changed by others

    def _rows_to_keep(self) -> int:
        """Rows of a chunk that is worth keeping in memory; 0 for none."""
        array = self._features
        if not array.chunks or not self._is_encoded(array):
            return 0
        rows = array.chunks[-2] if array.ndim > 1 else 0
        size = rows * array.shape[-1] * array.dtype.itemsize
        return rows if _SMALL_CHUNK < size <= LARGEST_CHUNK else 0

    def _leave_short_coords(self) -> None:
        """Leave out coordinates of a type that cannot hold them; the features are usable."""
        dtype = self.info.coords_dtype
        if dtype == "float16" and (note := short_coords_note(self.coords(), dtype)):
            self.info = replace(self.info, coords_dtype="", coords_note=note)

    def coords(self) -> np.ndarray | None:
        if not self.info.has_coords:
            return None
        with self._errors(self.info.path):
            return _rows_of(self._coords, 0, self.info.num_patches)

    def close(self) -> None:
        self._kept = None
        self._undo.close()


def _fill_value(array: Any) -> float | None:
    """What HDF5 or Zarr gives for values that were never written."""
    value = array.fillvalue if hasattr(array, "fillvalue") else array.fill_value
    return None if value is None else float(np.float32(value))


def _rows_of(array: Any, start: int, stop: int) -> np.ndarray:
    """Rows of an array stored as (N, …) or (1, N, …)."""
    return np.asarray(array[0, start:stop] if array.ndim == 3 else array[start:stop])


def _find_features(path: Path, arrays: Mapping) -> tuple[str, Any]:
    """Name and array of the features; FaultError if the file has none."""
    for name in FEATURE_DATASETS:
        if hasattr(arrays.get(name), "shape"):
            return name, arrays[name]
    names = ", ".join(f"'{name}'" for name in arrays) or "no datasets"
    if list(arrays) == ["coords"]:
        names = "only 'coords' (a patching file: coordinates without features)"
    expected = "a dataset 'features' (CLAM, TRIDENT) or 'feats'"
    raise FaultError.of("no-features", path, names, expected)


def _describe(
    path: Path, kind: str, name: str, features: Any, coords: Any, attributes: Mapping
) -> SlideInfo:
    where = f"{path}[{name}]"
    rows, dim = table_shape(where, features.shape)
    if features.dtype.kind != "f":
        raise FaultError.of("feature-dtype", where, str(features.dtype), "floating-point features")
    has_coords = getattr(coords, "ndim", 0) >= 2  # it may also be a group
    if has_coords:
        check_coords(f"{path}[coords]", coords.shape, rows)
        if coords.dtype.kind not in "iuf":
            raise FaultError.of("coords-dtype", f"{path}[coords]", str(coords.dtype), "numbers")
    of_features, of_coords = dict(features.attrs), dict(coords.attrs) if has_coords else {}
    tool = "stamp" if name == "feats" else "trident" if of_features else "clam"
    return SlideInfo(
        path,
        f"{tool}-{kind}",
        name,
        rows,
        dim,
        str(features.dtype),
        str(coords.dtype) if has_coords else "",
        **_provenance(dict(attributes), of_features, of_coords),
    )


def _provenance(file: dict, features: dict, coords: dict) -> dict[str, Any]:
    """How the features were made, as fields of ``SlideInfo``; None for what is not recorded.

    From the attributes of STAMP and TRIDENT, or from those with our own names.
    """

    def whole(value: float | None) -> int | None:
        return None if value is None else int(value)

    patch_size = _number(coords.get("patch_size"), file.get("tile_size_px"), file.get("patch_size"))
    mpp = _number(file.get("mpp"), features.get("mpp"), coords.get("mpp"))
    side_um = _number(file.get("tile_size_um"))
    magnification = _number(coords.get("target_magnification"))
    if mpp is None and side_um and patch_size:
        mpp = side_um / patch_size
    elif mpp is None and magnification:
        mpp = 10.0 / magnification  # 40x is 0.25 µm a pixel by convention
    level0 = _number(coords.get("patch_size_level0"), file.get("patch_size_level0"))
    return {
        "encoder": _text(features.get("encoder"), file.get("encoder"), file.get("extractor")),
        "mpp": mpp,
        "patch_size": whole(patch_size),
        "patch_size_level0": whole(level0),
        "patch_order": _text(file.get("patch_order"), coords.get("patch_order")),
    }


def _text(*values: object) -> str | None:
    """The first of these attributes that is a text; TRIDENT writes None as 'None'."""
    for value in values:
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if isinstance(text, str) and text not in ("", "None"):
            return text
    return None


def _number(*values: object) -> float | None:
    """The first of these attributes that is a number above 0."""
    for value in values:
        if isinstance(value, (int, float, np.number)) and np.isfinite(value) and value > 0:
            return float(value)
    return None
