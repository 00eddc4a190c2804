"""Writes synthetic slides in the layouts of CLAM, TRIDENT, STAMP and ``torch.save``."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from gimp_fast.data.prepare.assemble import SYNTHETIC_ENCODER

_PATCH_PX = 256


def _write_clam(file: Path, features: np.ndarray, coords: np.ndarray) -> None:
    chunk = min(32, len(features))
    with h5py.File(file, "w") as h5:
        h5.create_dataset("features", data=features, chunks=(chunk, features.shape[1]))
        h5.create_dataset("coords", data=(coords * _PATCH_PX).astype(np.int32), chunks=(chunk, 2))


def _write_trident(file: Path, features: np.ndarray, coords: np.ndarray) -> None:
    with h5py.File(file, "w") as h5:
        table = h5.create_dataset("features", data=features, chunks=(1, features.shape[1]))
        table.attrs.update(name=file.stem, savetodir="None", encoder=SYNTHETIC_ENCODER)
        places = h5.create_dataset("coords", data=(coords * _PATCH_PX).astype(np.int64))
        places.attrs.update(
            patch_size=_PATCH_PX,
            patch_size_level0=_PATCH_PX,
            level0_magnification=20,
            target_magnification=20,
            overlap=0,
        )


def _write_stamp(file: Path, features: np.ndarray, coords: np.ndarray) -> None:
    with h5py.File(file, "w") as h5:
        h5["feats"] = features.astype(np.float16)
        h5["coords"] = coords * 128.0
        h5.attrs.update(
            extractor=SYNTHETIC_ENCODER,
            unit="um",
            tile_size_um=128.0,
            tile_size_px=_PATCH_PX,
            feat_type="tile",
        )


def _write_pt(file: Path, features: np.ndarray, coords: np.ndarray) -> None:
    import torch

    torch.save(torch.from_numpy(np.ascontiguousarray(features)), file)


# Each takes a file, features (N, C) float32 and grid positions (N, 2) in patches.
SLIDE_WRITERS = {
    "clam": _write_clam,
    "trident": _write_trident,
    "stamp": _write_stamp,
    "pt": _write_pt,
}
