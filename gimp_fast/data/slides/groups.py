"""What HDF5 and Zarr files of slides share: named arrays with attributes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gimp_fast.data.slides.base import FEATURE_DATASETS, SlideInfo, check_coords, table_shape
from gimp_fast.errors import FaultError


def find_features(path: Path, group: Mapping, array_type: type) -> tuple[str, Any]:
    """Name and array of the features; FaultError if the file has none."""
    for name in FEATURE_DATASETS:
        found = group.get(name)
        if isinstance(found, array_type):
            return name, found
    names = ", ".join(f"'{name}'" for name in group) or "no datasets"
    if list(group) == ["coords"]:
        names = "only 'coords' (a patching file: coordinates without features)"
    raise FaultError.of(
        "no-features", path, names, "a dataset 'features' (CLAM, TRIDENT) or 'feats'"
    )


def describe(
    path: Path, kind: str, name: str, features: Any, coords: Any, attributes: Mapping
) -> SlideInfo:
    """SlideInfo of a group.

    Args:
        path: the file.
        kind: ``h5`` or ``zarr``.
        name: name of the array of features.
        features: the array of features.
        coords: the array of coordinates, or None.
        attributes: attributes of the file.
    """
    where = f"{path}[{name}]"
    rows, dim = table_shape(where, features.shape)
    if features.dtype.kind != "f":
        raise FaultError.of("feature-dtype", where, str(features.dtype), "floating-point features")
    has_coords = coords is not None and coords.ndim >= 2
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
    encoder = _text(features.get("encoder"))
    encoder = encoder or _text(file.get("encoder")) or _text(file.get("extractor"))
    patch_size = _number(coords.get("patch_size")) or _number(file.get("tile_size_px"))
    patch_size = patch_size or _number(file.get("patch_size"))
    level0 = _number(coords.get("patch_size_level0")) or _number(file.get("patch_size_level0"))
    mpp = _number(file.get("mpp")) or _number(features.get("mpp")) or _number(coords.get("mpp"))
    side_um = _number(file.get("tile_size_um"))
    magnification = _number(coords.get("target_magnification"))
    if mpp is None and side_um and patch_size:
        mpp = side_um / patch_size
    elif mpp is None and magnification:
        mpp = 10.0 / magnification  # 40x is 0.25 µm a pixel by convention
    return {
        "encoder": encoder,
        "mpp": mpp,
        "patch_size": _whole(patch_size),
        "patch_size_level0": _whole(level0),
        "patch_order": _text(file.get("patch_order")) or _text(coords.get("patch_order")),
    }


def _text(value: object) -> str | None:
    """An attribute as text; TRIDENT writes None as 'None'."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value if isinstance(value, str) and value not in ("", "None") else None


def _number(value: object) -> float | None:
    if isinstance(value, (int, float, np.number)) and np.isfinite(value) and value > 0:
        return float(value)
    return None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def rows_of(array: Any, start: int, stop: int) -> np.ndarray:
    """Rows of an array stored as (N, …) or (1, N, …)."""
    return array[0, start:stop] if array.ndim == 3 else array[start:stop]


def as_float32(rows: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # values beyond float32 become infinite, which checks report
        return rows.astype(np.float32, copy=False)
