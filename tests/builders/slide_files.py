"""Feature files of one small slide, in every format."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

FEATURES = np.random.default_rng(0).standard_normal((37, 5)).astype(np.float32)
COORDS = np.arange(74).reshape(37, 2)


def clam(file: Path) -> None:
    with h5py.File(file, "w") as h5:
        h5.create_dataset("features", data=FEATURES, chunks=(32, 5))
        h5.create_dataset("coords", data=COORDS.astype(np.int32))


def trident(file: Path, dtype: type = np.float32) -> None:
    with h5py.File(file, "w") as h5:
        h5.create_dataset("features", data=FEATURES.astype(dtype), chunks=(1, 5))
        h5["features"].attrs.update(encoder="uni_v1", name="s", savetodir="None")
        h5["coords"] = COORDS
        h5["coords"].attrs.update(patch_size=256, target_magnification=20, overlap="None")
        h5["coords"].attrs["patch_size_level0"] = 512


def stamp(file: Path) -> None:
    with h5py.File(file, "w") as h5:
        h5["feats"] = FEATURES.astype(np.float16)
        h5["coords"] = COORDS * 112.0
        h5.attrs.update(extractor="ctranspath", unit="um", tile_size_um=256.0, tile_size_px=224)


def batched(file: Path) -> None:
    with h5py.File(file, "w") as h5:
        h5["features"] = FEATURES[None]


def compressed(file: Path) -> None:
    with h5py.File(file, "w") as h5:
        h5.create_dataset("features", data=FEATURES, chunks=(8, 5), compression="gzip")


def checksummed(file: Path) -> None:
    with h5py.File(file, "w") as h5:
        h5.create_dataset("features", data=FEATURES, chunks=(8, 5), fletcher32=True)


def zarr_group(file: Path) -> None:
    zarr = pytest.importorskip("zarr")
    if file.name.endswith(".zip"):
        with zarr.storage.ZipStore(str(file), mode="w") as store:
            _fill_zarr(zarr.open_group(store, mode="w"))
    else:
        _fill_zarr(zarr.open_group(str(file), mode="w"))


def _fill_zarr(group) -> None:
    features = group.create_array("features", data=FEATURES, chunks=(8, 5))
    features.attrs["encoder"] = "uni_v1"
    coords = group.create_array("coords", data=COORDS, chunks=(8, 2))
    coords.attrs.update(patch_size=256, target_magnification=40, patch_size_level0=256)


def tensor(file: Path) -> None:
    torch.save(torch.from_numpy(FEATURES), file)


def old_tensor(file: Path) -> None:
    torch.save(torch.from_numpy(FEATURES), file, _use_new_zipfile_serialization=False)


def tensor_dict(file: Path) -> None:
    content = {"features": torch.from_numpy(FEATURES), "coords": torch.from_numpy(COORDS)}
    torch.save(content, file)


def write_h5(file: Path, **datasets: object) -> None:
    with h5py.File(file, "w") as h5:
        for name, data in datasets.items():
            h5[name] = data
