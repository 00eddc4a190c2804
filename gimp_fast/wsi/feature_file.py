"""Feature and coordinate files: CLAM's layout, with the attributes of TRIDENT's readers.

A file gets its name when it is complete: what an interruption leaves ends in ``.partial``.
"""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np

from gimp_fast import __version__
from gimp_fast.errors import FaultError, one_line
from gimp_fast.files.atomic import atomic_file
from gimp_fast.wsi.grid import MPP_AT_1X, PatchPlan
from gimp_fast.wsi.slide import SlideFacts

SETTINGS = "gimp_fast_settings"


class FeatureFile:
    """Features of one slide, written batch after batch.

    ``features`` (N, C) float32, ``coords`` (N, 2) int64 in pixels of level 0.

    Args:
        file: new, open for writing.
        target: where it will lie.
        coords: (N, 2).
        dim: C.
    """

    def __init__(self, file: h5py.File, target: Path, coords: np.ndarray, dim: int):
        self._file, self._target = file, target
        self._rows = 0
        # The number of rows is known: they lie in one piece, which reads windows the fastest.
        self.features = file.create_dataset("features", (len(coords), dim), np.float32)
        self.coords = file.create_dataset("coords", data=coords.astype(np.int64))

    def append(self, features: np.ndarray) -> None:
        """Write the next rows, (n, C) float32."""
        self.features[self._rows : self._rows + len(features)] = features
        self._rows += len(features)

    def describe(
        self, facts: SlideFacts, plan: PatchPlan, order: str, encoder: str, made: dict[str, object]
    ) -> None:
        """Write the attributes.

        Args:
            facts, plan: of the slide and its patches.
            order: of the rows, in the words of ``prepare --order``.
            encoder: its name.
            made: further facts of the making, by name; settings as a dictionary.
        """
        name, folder = self._target.name.removesuffix(".h5"), str(self._target.parent)
        self.features.attrs.update({"name": name, "savetodir": folder, "encoder": encoder})
        self.coords.attrs.update(trident_attributes(facts, plan, name, folder))
        _describe_file(self._file, facts, plan, order, {"encoder": encoder} | made)


def write_coords(
    path: Path, facts: SlideFacts, plan: PatchPlan, coords: np.ndarray, made: dict[str, object]
) -> None:
    """A file of coordinates alone, as CLAM's patching step writes it.

    Its ``patch_size`` is in pixels of ``patch_level``, as CLAM has it.
    """
    with atomic_file(path) as partial, h5py.File(partial, "w") as file:
        data = file.create_dataset("coords", data=coords.astype(np.int64))
        name, folder = path.name.removesuffix(".h5"), str(path.parent)
        data.attrs.update(trident_attributes(facts, plan, name, folder))
        level = facts.levels[plan.level]
        data.attrs.update(
            {
                "patch_size": plan.read_size,
                "patch_level": plan.level,
                "downsample": (level.downsample, level.downsample),
                "downsampled_level_dim": (level.width, level.height),
                "level_dim": (level.width, level.height),
                "save_path": folder,
            }
        )
        _describe_file(file, facts, plan, "row", made)


def trident_attributes(facts: SlideFacts, plan: PatchPlan, name: str, folder: str) -> dict:
    """What TRIDENT says of coordinates; magnifications are 10 / mpp."""
    return {
        "name": name,
        "savetodir": folder,
        "patch_size": plan.patch_size,
        "patch_size_level0": plan.size_level0,
        "level0_magnification": MPP_AT_1X / plan.level0_mpp,
        "target_magnification": MPP_AT_1X / plan.mpp,
        "overlap": 0,
        "level0_width": facts.width,
        "level0_height": facts.height,
    }


def _describe_file(
    file: h5py.File, facts: SlideFacts, plan: PatchPlan, order: str, made: dict[str, object]
) -> None:
    made = dict(made)
    made[SETTINGS] = json.dumps(made.pop("settings"), sort_keys=True)
    file.attrs.update(
        {
            "patch_order": order,
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
        }
        | made
    )


def read_coords(path: Path) -> tuple[np.ndarray, dict[str, object]]:
    """Coordinates and their attributes, from a file of CLAM, TRIDENT or this package.

    Returns:
        (N, 2) int64, and the attributes of the file and of the dataset together.

    Raises:
        FaultError: there is no such file, or it has no coordinates.
    """
    if not path.is_file():
        raise FaultError.of("missing-file", path, "no such file", "coordinates of the slide")
    try:
        with h5py.File(path, "r") as file:
            data = file.get("coords")
            if not isinstance(data, h5py.Dataset) or data.ndim != 2 or data.shape[1] != 2:
                found = f"datasets {sorted(file)}"
                raise FaultError.of("no-coords", path, found, "a dataset 'coords' (N, 2)")
            return data[:].astype(np.int64), {**file.attrs, **data.attrs}
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        expected = "a complete HDF5 file"
        raise FaultError.of("unreadable-file", path, one_line(error), expected) from error


def settings_of(path: Path) -> dict[str, object] | None:
    """The settings that a file was made with; None if this package did not make it.

    Raises:
        FaultError: it cannot be read.
    """
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get(SETTINGS)
        return None if text is None else json.loads(text)
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        expected = "a complete HDF5 file; --overwrite makes it anew"
        raise FaultError.of("unreadable-file", path, one_line(error), expected) from error
