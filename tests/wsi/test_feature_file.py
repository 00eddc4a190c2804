"""Files in CLAM's layout that the package's own readers understand; complete or absent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from builders.slides import MeanColour

from gimp_fast.data.slides import open_slide
from gimp_fast.errors import FaultError, GimpError
from gimp_fast.wsi.feature_file import (
    read_coords,
    rows_of,
    settings_of,
    write_coords,
    write_features,
)
from gimp_fast.wsi.grid import PatchPlan, PatchSet
from gimp_fast.wsi.slide import Level, SlideFacts

LEVELS = (Level(8000, 6000, 1.0), Level(2000, 1500, 4.0))
FACTS = SlideFacts(Path("slide-1.svs"), "test", LEVELS, 0.25, 40)
PLAN = PatchPlan(256, 512, 0, 512, 0.5, 0.25, "mpp of the slide")
META = {"settings": {"a": 1}}
COORDS = np.array([[0, 512], [512, 512], [0, 1024]], np.int64)
PATCHES = PatchSet(FACTS, PLAN, COORDS, "row")


class Encoder(MeanColour):
    name, dim = "resnet50_trunc-1234", 8


def write(path: Path) -> np.ndarray:
    features = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    batches = (batch for batch in (features[:2], features[2:]))
    write_features(path, PATCHES, Encoder(), batches, META)
    return features


def test_own_readers_understand_it(tmp_path):
    features = write(tmp_path / "h5_files" / "slide-1.h5")
    with open_slide(tmp_path / "h5_files" / "slide-1.h5") as slide:
        info = slide.info
        assert (slide.read() == features).all()
        assert (slide.coords() == COORDS).all()
    assert (info.num_patches, info.feature_dim, info.dtype, info.coords_dtype) == (
        3, 8, "float32", "int64",
    )  # fmt: skip
    assert (info.encoder, info.mpp, info.patch_size) == ("resnet50_trunc-1234", 0.5, 256)
    assert (info.patch_size_level0, info.patch_order) == (512, "row")


def test_readers_of_trident_find_their_attributes(tmp_path):
    write(tmp_path / "slide-1.h5")
    with h5py.File(tmp_path / "slide-1.h5") as file:
        assert dict(file["features"].attrs) == {
            "name": "slide-1", "savetodir": str(tmp_path), "encoder": "resnet50_trunc-1234",
        }  # fmt: skip
        attributes = dict(file["coords"].attrs)
    assert attributes.pop("name") == "slide-1"
    assert attributes.pop("savetodir") == str(tmp_path)
    assert attributes == {
        "patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40,
        "target_magnification": 20, "overlap": 0, "level0_width": 8000, "level0_height": 6000,
    }  # fmt: skip


def test_readers_of_clam_s_patches_find_their_attributes(tmp_path):
    path = tmp_path / "patches" / "slide-1.h5"
    plan = PatchPlan(256, 1600, 1, 400, 0.39, 0.0625, "test")
    write_coords(path, replace(PATCHES, plan=plan), {"settings": {}})
    coords, attributes = read_coords(path)
    assert (coords == COORDS).all()
    # The side of a patch in pixels of the level that CLAM reads.
    assert (attributes["patch_size"], attributes["patch_level"]) == (400, 1)
    assert attributes["patch_size_level0"] == 1600
    assert attributes["downsample"].tolist() == [4, 4]
    assert attributes["level_dim"].tolist() == [2000, 1500]
    assert attributes["name"] == "slide-1"


def test_features_are_contiguous(tmp_path):
    write(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["features"].chunks is None


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(GimpError, match=r"file.*a\.h5: cannot be written"):
        write(tmp_path / "file" / "a.h5")


def test_a_failure_between_batches_leaves_nothing_and_closes_the_reader(tmp_path):
    closed = []

    def batches():
        try:
            yield np.zeros((2, 8), np.float32)
            raise FaultError.of("unreadable-slide", "a.svs", "a broken tile", "none")
        finally:
            closed.append(True)

    with pytest.raises(FaultError, match="a broken tile"):
        write_features(tmp_path / "a.h5", PATCHES, Encoder(), batches(), META)
    assert closed
    assert list(tmp_path.iterdir()) == []


def test_settings_are_kept(tmp_path):
    write(tmp_path / "a.h5")
    settings, level0_mpp, source = settings_of(tmp_path / "a.h5")
    assert (settings, source) == ({"a": 1}, "mpp of the slide")
    with h5py.File(tmp_path / "a.h5") as file:
        assert level0_mpp == file.attrs["level0_mpp"]
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["features"] = np.zeros((1, 4))
    assert settings_of(tmp_path / "b.h5") is None
    (tmp_path / "c.h5").write_bytes(b"x")
    with pytest.raises(FaultError, match=r"c\.h5.*--overwrite"):
        settings_of(tmp_path / "c.h5")


def test_finished_files_are_read_in_another_process(tmp_path, monkeypatch):
    write(tmp_path / "a.h5")

    def hang(*words):
        raise AssertionError("HDF5 may never come back from a damaged file")

    monkeypatch.setattr(h5py, "File", hang)
    assert settings_of(tmp_path / "a.h5")[0] == {"a": 1}
    assert rows_of(tmp_path / "a.h5") == 3


def test_files_without_coordinates(tmp_path):
    with pytest.raises(FaultError, match="no such file"):
        read_coords(tmp_path / "absent.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"] = np.zeros((2, 4))
    with pytest.raises(FaultError, match=r"found datasets \['features'\]; expected a dataset 'coo"):
        read_coords(tmp_path / "a.h5")
    (tmp_path / "b.h5").write_bytes(b"x")
    with pytest.raises(FaultError, match=r"b\.h5"):
        read_coords(tmp_path / "b.h5")
