"""Rows that were declared and never written: what an interrupted extraction leaves."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from builders.slide_files import FEATURES
from h5py import h5d, h5p, h5s, h5t

from gimp_fast.data.slides.scan import scan_slide

ROWS, DIM = FEATURES.shape


def kinds(file: Path) -> list[str]:
    return [fault.kind for fault in scan_slide(file).faults]


def write_hdf5(file: Path, rows: int, **options: object) -> None:
    with h5py.File(file, "w") as h5:
        array = h5.create_dataset("features", FEATURES.shape, "f4", **options)
        if rows:
            array[:rows] = FEATURES[:rows]


def write_allocated_ahead(file: Path, rows: int, layout: int) -> None:
    """Layouts whose space says nothing; h5py's own functions do not make them."""
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_layout(layout)
    properties.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    with h5py.File(file, "w") as h5:
        space = h5s.create_simple(FEATURES.shape)
        h5d.create(h5.id, b"features", h5t.IEEE_F32LE, space, properties)
        if rows:
            h5["features"][:rows] = FEATURES[:rows]


def write_zarr(file: Path, rows: int, **options: object) -> None:
    zarr = pytest.importorskip("zarr")
    version = options.pop("version", 3)
    group = zarr.open_group(str(file), mode="w", zarr_format=version)
    array = group.create_array("features", shape=FEATURES.shape, dtype="f4", **options)
    if rows:
        array[:rows] = FEATURES[:rows]


def sharded(location: str, **options: object):
    shards = {"shape": (16, 6), "index_location": location}
    return lambda file, rows: write_zarr(file, rows, chunks=(4, 3), shards=shards, **options)


LAYOUTS = {
    "contiguous": ("s.h5", write_hdf5),
    "chunked": ("s.h5", lambda f, n: write_hdf5(f, n, chunks=(8, 5))),
    "narrow-chunks": ("s.h5", lambda f, n: write_hdf5(f, n, chunks=(8, 2))),
    "one-chunk": ("s.h5", lambda f, n: write_hdf5(f, n, chunks=FEATURES.shape)),
    "compressed": ("s.h5", lambda f, n: write_hdf5(f, n, chunks=(8, 5), compression="gzip")),
    "fill-value": ("s.h5", lambda f, n: write_hdf5(f, n, chunks=(8, 5), fillvalue=-1.0)),
    "compact": ("s.h5", lambda f, n: write_allocated_ahead(f, n, h5d.COMPACT)),
    "early": ("s.h5", lambda f, n: write_allocated_ahead(f, n, h5d.CONTIGUOUS)),
    "zarr-2": ("s.zarr", lambda f, n: write_zarr(f, n, chunks=(8, 5), version=2)),
    "zarr-3": ("s.zarr", lambda f, n: write_zarr(f, n, chunks=(8, 5))),
    "zarr-fill-value": ("s.zarr", lambda f, n: write_zarr(f, n, chunks=(8, 5), fill_value=7.0)),
    "shards": ("s.zarr", sharded("end")),
    "shards-index-first": ("s.zarr", sharded("start")),
    "shards-uncompressed": ("s.zarr", sharded("end", compressors=None)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_whole_file_passes(tmp_path, layout):
    name, write = LAYOUTS[layout]
    write(tmp_path / name, ROWS)
    scan = scan_slide(tmp_path / name)
    assert scan.faults == ()
    assert scan.info.num_patches == ROWS


# 16: the edge of chunks and of shards; 20: inside a shard; 35: inside the last chunk.
@pytest.mark.parametrize("written", [0, 1, 16, 20, 35, ROWS - 1])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_that_were_never_written_are_noticed(tmp_path, layout, written):
    name, write = LAYOUTS[layout]
    write(tmp_path / name, written)
    assert kinds(tmp_path / name) == ["truncated-file"]


def test_rows_of_zeros_that_were_written(tmp_path):
    """Only the end of a file can be what an interrupted extraction left."""
    features = FEATURES.copy()
    features[3:9] = 0
    for name, values in {"some.h5": features, "all.h5": np.zeros_like(features)}.items():
        with h5py.File(tmp_path / name, "w") as h5:
            h5["features"] = values
        assert kinds(tmp_path / name) == []


def test_the_fault_counts_the_rows(tmp_path):
    write_hdf5(tmp_path / "s.h5", 30, chunks=(32, 5))
    write_hdf5(tmp_path / "t.h5", 30, chunks=FEATURES.shape)
    (first,) = scan_slide(tmp_path / "s.h5").faults
    (second,) = scan_slide(tmp_path / "t.h5").faults
    assert first.found == "1 of 2 chunks of (32, 5)"
    assert second.found == "0 in all of the last 7 of 37 rows"


def test_an_index_of_shards_that_is_not_the_usual_one(tmp_path):
    zarr = pytest.importorskip("zarr")
    from zarr.codecs import BytesCodec, ShardingCodec

    inner = ShardingCodec(chunk_shape=(4, 5), codecs=[BytesCodec()])
    outer = ShardingCodec(chunk_shape=(8, 5), codecs=[inner])
    group = zarr.open_group(str(tmp_path / "s.zarr"), mode="w")
    array = zarr.create(
        store=group.store_path / "features", shape=FEATURES.shape, chunks=(16, 5), dtype="f4",
        codecs=[outer], zarr_format=3,
    )  # fmt: skip
    array[:] = FEATURES
    assert kinds(tmp_path / "s.zarr") == ["unreadable-file"]


def test_a_shard_cut_in_its_index(tmp_path):
    name, write = LAYOUTS["shards"]
    write(tmp_path / name, ROWS)
    shard = next(path for path in (tmp_path / name / "features/c").rglob("*") if path.is_file())
    shard.write_bytes(shard.read_bytes()[-30:])
    assert kinds(tmp_path / name) == ["truncated-file"]
