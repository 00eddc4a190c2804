"""A chunk that must be decoded as a whole is decoded once, however it is read."""

from __future__ import annotations

import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from gimp_fast.data.slides import groups, open_slide, scan

FEATURES = np.random.default_rng(0).standard_normal((100, 8)).astype(np.float32)


def h5(file: Path, chunks: tuple[int, int], **options: object) -> None:
    with h5py.File(file, "w") as group:
        group.create_dataset("features", data=FEATURES, chunks=chunks, **options)


def zarr_group(file: Path, chunks: tuple[int, int], **options: object) -> None:
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(str(file), mode="w")
    array = group.create_array("features", shape=(100, 8), chunks=chunks, dtype="f4", **options)
    array[:] = FEATURES


CASES = {
    "gzip": ("s.h5", lambda f, c: h5(f, c, compression="gzip")),
    "shuffled": ("s.h5", lambda f, c: h5(f, c, shuffle=True)),
    "zarr": ("s.zarr", zarr_group),
    "zarr-plain": ("s.zarr", lambda f, c: zarr_group(f, c, compressors=None)),
}


@pytest.fixture
def reads(monkeypatch) -> list[tuple[int, int]]:
    """The spans that a library was asked for; a chunk of more than 100 bytes counts as large."""
    spans, rows_of = [], groups._rows_of
    monkeypatch.setattr(groups, "_SMALL_CHUNK", 100)
    monkeypatch.setattr(scan, "SCAN_BYTES", 7 * 32)  # seven rows

    def spy(array, start, stop):
        spans.append((start, stop))
        return rows_of(array, start, stop)

    monkeypatch.setattr(groups, "_rows_of", spy)
    return spans


@pytest.mark.parametrize("chunks", [(100, 8), (40, 8), (40, 3)])
@pytest.mark.parametrize("case", CASES)
def test_a_scan_decodes_each_chunk_once(tmp_path, reads, case, chunks):
    name, write = CASES[case]
    write(tmp_path / name, chunks)
    found = scan._scan(tmp_path / name)
    assert found.faults == ()
    size = chunks[0]
    assert reads == [(n, min(n + size, 100)) for n in range(0, 100, size)]


@pytest.mark.parametrize("case", CASES)
def test_any_span_is_what_was_stored(tmp_path, reads, case):
    name, write = CASES[case]
    write(tmp_path / name, (40, 8))
    with open_slide(tmp_path / name) as slide:
        for start, stop in [(0, 100), (39, 41), (40, 80), (99, 100), (0, 1), (35, 95)]:
            rows = slide.read(start, stop)
            np.testing.assert_array_equal(rows, FEATURES[start:stop])
            rows[:] = 0  # of the caller, not of what is kept


def test_small_and_plain_chunks_are_read_as_asked(tmp_path, reads):
    h5(tmp_path / "plain.h5", (50, 8))
    with open_slide(tmp_path / "plain.h5") as slide:
        slide.read(3, 5)
    h5(tmp_path / "small.h5", (2, 8), compression="gzip")
    with open_slide(tmp_path / "small.h5") as slide:
        slide.read(3, 5)
    assert reads == [(3, 5), (3, 5)]


@pytest.mark.parametrize("name", ["s.h5", "s.zarr"])
def test_a_chunk_beyond_one_gibibyte_is_refused(tmp_path, name):
    """It needs no space on the disk: a chunk of zeros is small when it is compressed."""
    shape = (1 << 20, 512)
    if name == "s.h5":
        with h5py.File(tmp_path / name, "w") as group:
            group.create_dataset("features", shape, "f4", chunks=shape, compression="gzip")
    else:
        zarr = pytest.importorskip("zarr")
        group = zarr.open_group(str(tmp_path / name), mode="w")
        group.create_array("features", shape=shape, chunks=shape, dtype="f4")
    (fault,) = scan.scan_slide(tmp_path / name).faults
    assert fault.expected == "chunks below 1 GiB"


def test_too_many_channels_are_refused(tmp_path):
    with h5py.File(tmp_path / "s.h5", "w") as group:
        group.create_dataset("features", (3, 1 << 21), "f4", chunks=(1, 1 << 21))
    (fault,) = scan.scan_slide(tmp_path / "s.h5").faults
    assert fault.kind == "feature-shape"


def test_an_archive_whose_files_grow_beyond_a_chunk(tmp_path, monkeypatch):
    from gimp_fast.data.slides import zarr_file

    file = tmp_path / "s.zarr.zip"
    zarr = pytest.importorskip("zarr")
    with zarr.storage.ZipStore(str(file), mode="w") as store:
        group = zarr.open_group(store, mode="w")
        group.create_array("features", data=FEATURES, chunks=(40, 8))
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("features/c/9/9", bytes(1 << 20))
    monkeypatch.setattr(zarr_file, "LARGEST_CHUNK", 1 << 19)
    (fault,) = scan._scan(file).faults
    assert fault.expected == "compressed files below 1 GiB"
