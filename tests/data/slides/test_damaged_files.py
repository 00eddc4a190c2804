"""Damaged feature files: a fault, or what was written. Never another error, array, or a hang.

A byte that no checksum protects can be another number without anybody seeing it: where such a
byte was hit, the one number that it encodes may differ, and nothing else.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from builders.slide_files import (
    COORDS,
    FEATURES,
    old_tensor,
    tensor,
    zarr_group,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gimp_fast.data.slides import open_slide
from gimp_fast.data.slides.scan import scan_slide
from gimp_fast.data.store.reader import FeatureStore
from gimp_fast.data.store.writer import PackedSlide, write_store
from gimp_fast.errors import FaultError
from gimp_fast.files import isolated

fuzz = settings(
    max_examples=int(os.environ.get("GIMP_FAST_FUZZ", "30")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


places = st.floats(0, 1, exclude_max=True)


def h5(file: Path, **options: object) -> None:
    with h5py.File(file, "w") as group:
        group.create_dataset("features", data=FEATURES, **options)
        group["coords"] = COORDS


def with_attributes(file: Path) -> None:
    """TRIDENT's: text in attributes lies in a heap of its own."""
    h5(file, chunks=(1, 5))
    with h5py.File(file, "a") as group:
        group["features"].attrs.update(name="s", savetodir="None", encoder="resnet50")
        group["coords"].attrs.update(patch_size=256, target_magnification=20, overlap="None")


def sharded(file: Path) -> None:
    zarr = pytest.importorskip("zarr")
    with zarr.storage.ZipStore(str(file), mode="w") as store:
        group = zarr.open_group(store, mode="w")
        shape = FEATURES.shape
        array = group.create_array(
            "features", shape=shape, chunks=(4, 5), shards=(16, 5), dtype="f4"
        )
        array[:] = FEATURES


@pytest.fixture(autouse=True)
def short_patience(monkeypatch):
    """HDF5 loops forever over some damaged files; here they are small, and waiting is long."""
    monkeypatch.setattr(isolated, "SECONDS", 5.0)


FILES = {
    "contiguous": ("s.h5", h5),
    "clam": ("s.h5", lambda f: h5(f, chunks=(32, 5))),
    "trident": ("s.h5", lambda f: h5(f, chunks=(1, 5))),
    "attributes": ("s.h5", with_attributes),
    "gzip": ("s.h5", lambda f: h5(f, chunks=(8, 5), compression="gzip")),
    "fletcher32": ("s.h5", lambda f: h5(f, chunks=(8, 5), fletcher32=True)),
    "zarr-zip": ("s.zarr.zip", zarr_group),
    "zarr-shards": ("s.zarr.zip", sharded),
    "pt": ("s.pt", tensor),
    "pt-before-1.6": ("s.pt", old_tensor),
}


# These protect their numbers: a flipped bit is found, wherever it is.
PROTECTED = {"pt"}


def read_as_prepare_does(file: Path) -> np.ndarray | None:
    """The features, or None if a fault was found; anything else is an error of ours."""
    if scan_slide(file).faults:
        return None
    with open_slide(file) as slide:
        return slide.read()


@pytest.mark.parametrize("case", FILES)
@fuzz
@given(fraction=places)
def test_cutting_a_file_anywhere(tmp_path, case, fraction):
    name, write = FILES[case]
    write(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(fraction * len(content))])
    rows = read_as_prepare_does(tmp_path / name)
    assert rows is None or np.array_equal(rows, FEATURES)


@pytest.mark.parametrize("case", sorted(PROTECTED))
@fuzz
@given(place=places, bit=st.integers(0, 7))
def test_a_flipped_bit_of_a_protected_file_is_found(tmp_path, case, place, bit):
    name, write = FILES[case]
    write(tmp_path / name)
    flip(tmp_path / name, place, bit)
    rows = read_as_prepare_does(tmp_path / name)
    assert rows is None or np.array_equal(rows, FEATURES)


@pytest.mark.parametrize("case", sorted(FILES.keys() - PROTECTED))
@fuzz
@given(place=places, bit=st.integers(0, 7))
def test_a_flipped_bit_is_no_error_of_ours(tmp_path, case, place, bit):
    name, write = FILES[case]
    write(tmp_path / name)
    flip(tmp_path / name, place, bit)
    rows = read_as_prepare_does(tmp_path / name)
    # A flip in the header can say that there are fewer rows or channels than there were.
    assert rows is None or (rows.dtype == np.float32 and rows.ndim == 2)
    assert rows is None or rows.size <= FEATURES.size


@fuzz
@given(place=places, bit=st.integers(0, 7))
def test_a_flipped_bit_among_the_numbers_changes_that_number_alone(tmp_path, place, bit):
    file = tmp_path / "s.h5"
    h5(file)
    with h5py.File(file) as group:
        start = group["features"].id.get_offset()
    at = start + int(place * FEATURES.nbytes)
    content = bytearray(file.read_bytes())
    content[at] ^= 1 << bit
    file.write_bytes(content)
    rows = read_as_prepare_does(file)
    if rows is not None:
        differing = np.flatnonzero((rows != FEATURES).ravel())
        assert set(differing) <= {(at - start) // 4}


@pytest.mark.parametrize("suffix", [".h5", ".pt", ".zarr", ".zarr.zip"])
@fuzz
@given(
    content=st.binary(max_size=400),
    magic=st.sampled_from([b"", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"\x80\x02"]),
)
def test_arbitrary_bytes_are_a_fault(tmp_path, suffix, content, magic):
    file = tmp_path / f"s{suffix}"
    file.write_bytes(magic + content)
    with pytest.raises(FaultError):
        open_slide(file)


dtypes = st.sampled_from(["i1", "i8", "u2", "?", "c8", "S3", "f2", ">f4", "f8"])


shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@fuzz
@given(dtype=dtypes, shape=shapes, coords=shapes)
def test_any_shape_and_type_in_hdf5(tmp_path, dtype, shape, coords):
    file = tmp_path / "s.h5"
    with h5py.File(file, "w") as group:
        group["features"] = np.ones(shape, dtype)
        group["coords"] = np.ones(coords, dtype)
    rows = read_as_prepare_does(file)
    table = shape[1:] if len(shape) == 3 else shape
    assert rows is None or (dtype in ("f2", "f8") and rows.shape == table and (rows == 1).all())


@fuzz
@given(dtype=st.sampled_from(list({torch.float16, torch.int8, torch.bool, torch.complex64,
                                   torch.bfloat16, torch.float64})), shape=shapes)  # fmt: skip
def test_any_shape_and_type_in_pt(tmp_path, dtype, shape):
    torch.save(torch.ones(shape, dtype=dtype), tmp_path / "s.pt")
    rows = read_as_prepare_does(tmp_path / "s.pt")
    table = shape[1:] if len(shape) == 3 else shape
    assert rows is None or (dtype.is_floating_point and rows.shape == table and (rows == 1).all())


STORED = FEATURES.astype(np.float16).astype(np.float32)


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    h5(folder / "s.h5")
    slides = [PackedSlide(name, folder / "s.h5", 37, "int64") for name in ("a", "b")]
    write_store(folder / "whole.safetensors", slides, dtype="fp16", feature_dim=5, order="file")
    return folder / "whole.safetensors"


def read_store(file: Path) -> None:
    """A fault, or exactly what was packed."""
    try:
        store = FeatureStore(file)
        found = {name: (store.read(name), store.coords(name)) for name in store.slide_ids}
    except FaultError:
        return
    assert list(found) == ["a", "b"]
    for rows, coords in found.values():
        np.testing.assert_array_equal(rows, STORED)
        np.testing.assert_array_equal(coords, COORDS)


@fuzz
@given(fraction=places)
def test_cutting_a_store_is_found_when_it_is_opened(tmp_path, packed, fraction):
    content = packed.read_bytes()
    (tmp_path / "s").write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(FaultError):
        FeatureStore(tmp_path / "s")


@fuzz
@given(place=places, bit=st.integers(0, 7))
def test_a_flipped_bit_of_a_store_is_found(tmp_path, packed, place, bit):
    shutil.copy(packed, tmp_path / "s")
    flip(tmp_path / "s", place, bit)
    read_store(tmp_path / "s")


@fuzz
@given(place=places, bit=st.integers(0, 7))
def test_a_flipped_bit_of_a_store_s_index_is_found(tmp_path, packed, place, bit):
    """Most of a small store is the padding of its header; this aims before it."""
    shutil.copy(packed, tmp_path / "s")
    content = packed.read_bytes()
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    flip(tmp_path / "s", place, bit, 8 + len(header.rstrip(b" ")))
    with pytest.raises(FaultError):
        FeatureStore(tmp_path / "s")


def flip(file: Path, place: float, bit: int, length: int | None = None) -> None:
    content = bytearray(file.read_bytes())
    content[int(place * (length or len(content)))] ^= 1 << bit
    file.write_bytes(content)
