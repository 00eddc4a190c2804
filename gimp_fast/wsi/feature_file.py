"""Feature and coordinate files: CLAM's layout, with the attributes that TRIDENT's readers use."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np

from gimp_fast import __version__
from gimp_fast.data.slides import open_slide
from gimp_fast.errors import FaultError, GimpError, one_line
from gimp_fast.files.atomic import atomic_file
from gimp_fast.files.hdf5 import check_stored, hdf5_errors, member
from gimp_fast.files.isolated import run_isolated
from gimp_fast.files.json_file import need_object, parse_json
from gimp_fast.wsi.grid import PatchSet
from gimp_fast.wsi.resolution import MPP_AT_1X

SETTINGS = "gimp_fast_settings"
_REMADE = "a complete HDF5 file; --overwrite makes it again"


class PatchEncoder(Protocol):
    """What extraction needs of an encoder, such as ``wsi.encoders.running.Encoder``."""

    name: str
    dim: int
    weights: str
    precision: str
    facts: Mapping[str, str]  # further attributes of the files

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        """(B, P, P, 3) uint8 -> (B, C) float32."""


def write_features(
    path: Path,
    patches: PatchSet,
    encoder: PatchEncoder,
    batches: Generator[np.ndarray],
    provenance: dict[str, object],
) -> None:
    """Write ``features`` (N, C) float32 and ``coords`` (N, 2) int64, or no file at all.

    ``batches`` yields N rows of features in all, (n, C) float32 each, and is closed at the end.
    ``provenance`` holds further attributes by name; its ``settings`` is a dictionary.
    """
    coords = patches.coords.astype(np.int64)
    made_with = {"weights": encoder.weights, "precision": encoder.precision, **encoder.facts}
    # The generator is closed whatever happens: its threads must end before the slide is closed.
    with contextlib.closing(batches), atomic_file(path) as partial, h5py.File(partial, "w") as file:
        # Contiguous, since N is known: the layout whose windows are read fastest.
        features = file.create_dataset("features", (len(coords), encoder.dim), np.float32)
        file["coords"] = coords
        features.attrs.update(_name_and_folder(path) | {"encoder": encoder.name})
        _describe(file, path, patches, {"encoder": encoder.name} | provenance | made_with, {})
        row = 0
        for batch in batches:
            features[row : row + len(batch)] = batch
            row += len(batch)


def write_coords(path: Path, patches: PatchSet, provenance: dict[str, object]) -> None:
    """Write a file of coordinates alone, as CLAM's patching step does.

    Its ``patch_size`` is in pixels of ``patch_level``, as in CLAM.
    """
    plan = patches.plan
    level = patches.facts.levels[plan.level]
    clam = {
        "patch_size": plan.read_size,
        "patch_level": plan.level,
        "downsample": (level.downsample, level.downsample),
        "downsampled_level_dim": (level.width, level.height),
        "level_dim": (level.width, level.height),
        "save_path": str(path.parent),
    }
    with atomic_file(path) as partial, h5py.File(partial, "w") as file:
        file["coords"] = patches.coords.astype(np.int64)
        _describe(file, path, patches, provenance, clam)


def _name_and_folder(path: Path) -> dict[str, object]:
    return {"name": path.name.removesuffix(".h5"), "savetodir": str(path.parent)}


def _describe(
    file: h5py.File, path: Path, patches: PatchSet, provenance: dict, clam: dict[str, object]
) -> None:
    """Attributes of the file, and TRIDENT's of ``coords``, whose magnifications are 10 / mpp."""
    facts, plan = patches.facts, patches.plan
    trident = {
        "patch_size": plan.patch_size,
        "patch_size_level0": plan.size_level0,
        "level0_magnification": MPP_AT_1X / plan.level0_mpp,
        "target_magnification": MPP_AT_1X / plan.mpp,
        "overlap": 0,
        "level0_width": facts.width,
        "level0_height": facts.height,
    }
    file["coords"].attrs.update(_name_and_folder(path) | trident)
    file["coords"].attrs.update(clam)
    attributes = {
        "patch_order": patches.order,
        "mpp": plan.mpp,
        "patch_size": plan.patch_size,
        "patch_size_level0": plan.size_level0,
        "level": plan.level,
        "level_read_size": plan.read_size,
        "level0_mpp": plan.level0_mpp,
        "mpp_source": plan.mpp_source,
        "slide": facts.path.name,
        "reader": facts.reader,
        "made_by": f"gimp_fast {__version__}",
    } | provenance
    attributes[SETTINGS] = json.dumps(attributes.pop("settings"), sort_keys=True)
    file.attrs.update(attributes)


def read_coords(path: Path) -> tuple[np.ndarray, dict[str, object]]:
    """Coordinates (N, 2) int64, and the attributes of the file and of the dataset together.

    Raises:
        FaultError: there is no such file of CLAM, TRIDENT or this package.
    """
    if not path.is_file():
        raise FaultError.of("missing-file", path, "no such file", "coordinates of the slide")
    return run_isolated(_read_coords, path)


def _read_coords(path: Path) -> tuple[np.ndarray, dict[str, object]]:
    with hdf5_errors(path, "a complete HDF5 file"), h5py.File(path, "r") as file:
        data = member(file, "coords")
        if not isinstance(data, h5py.Dataset) or data.ndim != 2 or data.shape[1] != 2:
            found = f"datasets {sorted(file)}"
            raise FaultError.of("no-coords", path, found, "a dataset 'coords' (N, 2)")
        check_stored(f"{path}[coords]", data)
        return data[:].astype(np.int64), {**file.attrs, **data.attrs}


def settings_of(path: Path) -> tuple[dict[str, object], float, str] | None:
    """The settings of a file, its micrometres per pixel of level 0, and where these come from.

    None if another program made the file.
    """
    found = run_isolated(_read_settings, path)
    if found is None:
        return None
    text, mpp, source = found
    try:
        return need_object(parse_json(text, f"{path}[{SETTINGS}]"), path), mpp, source
    except GimpError as error:
        raise FaultError.of("unreadable-file", path, one_line(error), _REMADE) from error


def _read_settings(path: Path) -> tuple[str, float, str] | None:
    with hdf5_errors(path, _REMADE), h5py.File(path, "r") as file:
        text = file.attrs.get(SETTINGS)
        if text is None:
            return None
        return str(text), float(file.attrs["level0_mpp"]), str(file.attrs["mpp_source"])


def rows_of(path: Path) -> int:
    """Rows of a finished file of features."""
    return run_isolated(_count_rows, path)


def _count_rows(path: Path) -> int:
    with open_slide(path) as slide:
        return slide.info.num_patches
