"""Every feature format reads back what was written, and a bad file is one clear fault."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from builders.faults import faults_of, kinds_of
from builders.slide_files import (
    COORDS,
    FEATURES,
    batched,
    checksummed,
    clam,
    compressed,
    old_tensor,
    stamp,
    tensor,
    tensor_dict,
    trident,
    write_h5,
    zarr_group,
)

from gimp_fast.data.slides import open_slide
from gimp_fast.data.slides.scan import scan_slide
from gimp_fast.errors import FaultError

WRITERS = {
    "clam": (clam, "s.h5", "clam-h5", "float32", True),
    "trident": (trident, "s.h5", "trident-h5", "float32", True),
    "trident-f16": (lambda f: trident(f, np.float16), "s.h5", "trident-h5", "float16", True),
    "stamp": (stamp, "s.h5", "stamp-h5", "float16", True),
    "batched": (batched, "s.h5", "clam-h5", "float32", False),
    "compressed": (compressed, "s.h5", "clam-h5", "float32", False),
    "fletcher32": (checksummed, "s.h5", "clam-h5", "float32", False),
    "zarr": (zarr_group, "s.zarr", "trident-zarr", "float32", True),
    "zarr-zip": (zarr_group, "s.zarr.zip", "trident-zarr", "float32", True),
    "pt": (tensor, "s.pt", "pt", "float32", False),
    "pt-before-1.6": (old_tensor, "s.pt", "pt", "float32", False),
    "pt-dictionary": (tensor_dict, "s.pt", "pt", "float32", True),
}


@pytest.mark.parametrize("case", WRITERS)
def test_round_trip(tmp_path, case):
    write, name, kind, dtype, has_coords = WRITERS[case]
    write(tmp_path / name)
    expected = FEATURES.astype(dtype).astype(np.float32)
    with open_slide(tmp_path / name) as slide:
        info = slide.info
        assert (info.format, info.num_patches, info.feature_dim) == (kind, 37, 5)
        assert (info.dtype, info.has_coords) == (dtype, has_coords)
        for start, stop in [(0, None), (0, 0), (36, 37), (5, 20), (37, 37)]:
            rows = slide.read(start, stop)
            assert rows.dtype == np.float32
            np.testing.assert_array_equal(rows, expected[start:stop])
        assert (slide.coords() is not None) == has_coords
        slide.verify()


@pytest.mark.parametrize("case", ["clam", "compressed", "zarr", "pt"])
def test_rows_in_any_order(tmp_path, case):
    write, name, *_ = WRITERS[case]
    write(tmp_path / name)
    rows = np.random.default_rng(1).permutation(37)
    with open_slide(tmp_path / name) as slide:
        for chosen in (rows, rows[:5], rows[:0], np.array([36, 0])):
            np.testing.assert_array_equal(slide.read_rows(chosen), FEATURES[chosen])


def test_scattered_rows_are_not_read_through(tmp_path, monkeypatch):
    file = tmp_path / "s.h5"
    write_h5(file, features=np.arange(5000, dtype=np.float32).reshape(1000, 5))
    reads = []
    with open_slide(file) as slide:
        read = slide.read
        monkeypatch.setattr(slide, "read", lambda a, b: reads.append((a, b)) or read(a, b))
        rows = slide.read_rows(np.array([900, 10, 0, 12, 901]))
    assert reads == [(0, 13), (900, 902)]
    assert rows[:, 0].tolist() == [4500, 50, 0, 60, 4505]


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("clam", (None, None, None, None)),
        ("trident", ("uni_v1", 0.5, 256, 512)),
        ("stamp", ("ctranspath", 256 / 224, 224, None)),
        ("zarr", ("uni_v1", 0.25, 256, 256)),
        ("pt", (None, None, None, None)),
    ],
)
def test_provenance_is_read(tmp_path, case, expected):
    write, name, *_ = WRITERS[case]
    write(tmp_path / name)
    with open_slide(tmp_path / name) as slide:
        info = slide.info
        found = (info.encoder, info.mpp, info.patch_size, info.patch_size_level0)
        assert found == expected


def test_facts_that_are_named_in_the_file(tmp_path):
    write_h5(tmp_path / "s.h5", features=FEATURES)
    with h5py.File(tmp_path / "s.h5", "a") as h5:
        h5.attrs.update(encoder="mine", mpp=0.5, patch_size=256, patch_order="hilbert")
    with open_slide(tmp_path / "s.h5") as slide:
        info = slide.info
        assert (info.encoder, info.mpp, info.patch_size) == ("mine", 0.5, 256)
        assert info.patch_order == "hilbert"


@pytest.mark.parametrize("case", ["clam", "pt-dictionary"])
def test_coords_come_as_stored(tmp_path, case):
    write, name, *_ = WRITERS[case]
    write(tmp_path / name)
    with open_slide(tmp_path / name) as slide:
        np.testing.assert_array_equal(slide.coords(), COORDS)


@pytest.mark.parametrize("shape", [(0, 5), (0,)], ids=["0xD", "0"])
@pytest.mark.parametrize("suffix", [".h5", ".pt"])
def test_empty_slides_open(tmp_path, shape, suffix):
    file = tmp_path / f"s{suffix}"
    if suffix == ".pt":
        torch.save(torch.empty(shape), file)
    else:
        with h5py.File(file, "w") as h5:
            h5["features"] = np.empty(shape, np.float32)
    with open_slide(file) as slide:
        assert slide.info.num_patches == 0
        assert slide.read().shape == (0, slide.info.feature_dim)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (4, 3), (0, 38)])
def test_ranges_outside_the_slide_are_refused(tmp_path, start, stop):
    clam(tmp_path / "s.h5")
    with open_slide(tmp_path / "s.h5") as slide, pytest.raises(ValueError, match="not inside"):
        slide.read(start, stop)


def declare_rows_without_writing(file: Path) -> None:
    with h5py.File(file, "w") as h5:
        h5.create_dataset("features", shape=(100, 5), chunks=(10, 5), dtype="f4")[:10] = 1


def declare_zarr_rows_without_writing(file: Path) -> None:
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(str(file), mode="w")
    group.create_array("features", shape=(100, 5), chunks=(10, 5), dtype="f4")[:10] = 1


def half_a_zarr_chunk(file: Path) -> None:
    zarr_group(file)
    for chunk in (file / "features" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(chunk.read_bytes()[:9])


BAD_FILES = {
    "coords-only": ("s.h5", lambda f: write_h5(f, coords=COORDS), "no-features"),
    "integers": ("s.h5", lambda f: write_h5(f, features=COORDS), "feature-dtype"),
    "1-d": ("s.h5", lambda f: write_h5(f, features=FEATURES[0]), "feature-shape"),
    "two-bags": ("s.h5", lambda f: write_h5(f, features=np.ones((2, 3, 4))), "feature-shape"),
    "coords-of-others": (
        "s.h5",
        lambda f: write_h5(f, features=FEATURES, coords=COORDS[1:]),
        "coords-shape",
    ),
    "never-written": ("s.h5", declare_rows_without_writing, "truncated-file"),
    "big-endian": (
        "s.h5",
        lambda f: write_h5(f, features=FEATURES.astype(">f4")),
        "feature-dtype",
    ),
    "text-coords": (
        "s.h5",
        lambda f: write_h5(f, features=FEATURES, coords=np.full((37, 2), b"x")),
        "coords-dtype",
    ),
    "zarr-never-written": ("s.zarr", declare_zarr_rows_without_writing, "truncated-file"),
    "zarr-folder": ("s.zarr", lambda f: f.mkdir(), "unreadable-file"),
    "zarr-file": ("s.zarr", lambda f: f.write_text("x", encoding="utf-8"), "unreadable-file"),
    "zarr-no-zip": ("s.zarr.zip", lambda f: f.write_bytes(b"PK"), "unreadable-file"),
    "not-hdf5": ("s.h5", lambda f: f.write_text("hello", encoding="utf-8"), "unreadable-file"),
    "empty-h5": ("s.h5", lambda f: f.touch(), "unreadable-file"),
    "empty-pt": ("s.pt", lambda f: f.touch(), "unreadable-file"),
    "pt-list": ("s.pt", lambda f: torch.save([1, 2], f), "no-features"),
    "pt-integers": ("s.pt", lambda f: torch.save(torch.arange(6).view(2, 3), f), "feature-dtype"),
    "pt-sparse": ("s.pt", lambda f: torch.save(torch.eye(3).to_sparse(), f), "no-features"),
    "pt-array": ("s.pt", lambda f: torch.save(FEATURES, f), "unsafe-pickle"),
    "unknown": ("s.npy", lambda f: np.save(f, FEATURES), "unknown-format"),
    "missing": ("s.h5", lambda f: None, "missing-file"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_one_fault_that_names_them(tmp_path, case):
    name, write, kind = BAD_FILES[case]
    write(tmp_path / name)
    ((found, message),) = faults_of(lambda: open_slide(tmp_path / name))
    assert found == kind
    assert str(tmp_path / name) in message


@pytest.mark.parametrize("case", ["clam", "pt"])
def test_truncated_file(tmp_path, case):
    write, name, *_ = WRITERS[case]
    file = tmp_path / name
    write(file)
    file.write_bytes(file.read_bytes()[:-40])
    assert kinds_of(lambda: open_slide(file)) == ["truncated-file"]


class Bomb:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


DUMPS = {
    "torch": torch.save,
    "torch-before-1.6": lambda b, f: torch.save(b, f, _use_new_zipfile_serialization=False),
    "pickle-2": lambda b, f: f.write_bytes(pickle.dumps(b, protocol=2)),
}


@pytest.mark.parametrize("dump", DUMPS)
def test_a_pickle_bomb_does_not_go_off(tmp_path, dump):
    effect, file = tmp_path / "effect", tmp_path / "s.pt"
    DUMPS[dump](Bomb(effect), file)
    assert kinds_of(lambda: open_slide(file)) == ["unsafe-pickle"]
    assert not effect.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("inside", ["alone", "in a list", "archive", "before-1.6"])
def test_a_bomb_of_any_protocol_is_called_unsafe(tmp_path, protocol, inside):
    effect, file = tmp_path / "effect", tmp_path / "s.pt"
    if inside in ("archive", "before-1.6"):
        zipped = inside == "archive"
        content = {"features": torch.zeros(3, 4), "x": Bomb(effect)}
        torch.save(content, file, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    else:
        bomb = Bomb(effect) if inside == "alone" else [1, {"x": Bomb(effect)}]
        file.write_bytes(pickle.dumps(bomb, protocol=protocol))
    ((kind, message),) = faults_of(lambda: open_slide(file))
    assert kind == "unsafe-pickle"
    assert "touch" in message or "getattr" in message
    assert not effect.exists()


@pytest.mark.parametrize("protocol", [4, 5])
def test_tensors_of_a_newer_protocol_are_refused_by_their_cause(tmp_path, protocol):
    torch.save(torch.zeros(3, 4), tmp_path / "s.pt", pickle_protocol=protocol)
    ((kind, message),) = faults_of(lambda: open_slide(tmp_path / "s.pt"))
    assert kind == "unsafe-pickle"
    assert f"found a pickle of protocol {protocol}" in message
    assert "saved again with torch's default protocol" in message


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_without_code_or_tensors(tmp_path, protocol):
    (tmp_path / "s.pt").write_bytes(pickle.dumps({"features": [1.0]}, protocol=protocol))
    expected = "unreadable-file" if protocol <= 3 else "unsafe-pickle"
    assert kinds_of(lambda: open_slide(tmp_path / "s.pt")) == [expected]


def test_coordinate_files_of_real_slides_are_no_features(real_data):
    for file in sorted((real_data / "clam_coords").glob("*.h5")):
        with pytest.raises(FaultError, match="coordinates without features"):
            open_slide(file)


def test_zarr_chunks_that_cannot_be_decoded(tmp_path):
    half_a_zarr_chunk(tmp_path / "s.zarr")
    with open_slide(tmp_path / "s.zarr") as slide, pytest.raises(FaultError) as error:
        slide.read()
    assert [fault.kind for fault in error.value.faults] == ["unreadable-file"]


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    (tmp_path / "s.zarr").mkdir()
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(FaultError, match=r"gimp-fast\[formats\]") as error:
        open_slide(tmp_path / "s.zarr")
    assert [fault.kind for fault in error.value.faults] == ["missing-library"]


def test_pt_content_is_checked_against_its_crc(tmp_path):
    file = tmp_path / "s.pt"
    tensor(file)
    content = bytearray(file.read_bytes())
    content[content.index(FEATURES.tobytes()) + 5] ^= 1
    file.write_bytes(content)
    assert [fault.kind for fault in scan_slide(file).faults] == ["checksum"]


def test_a_scan_finds_what_reading_does_not(tmp_path):
    features = FEATURES.copy()
    features[[7, 9], 2] = np.nan, np.inf
    write_h5(tmp_path / "nan.h5", features=features)
    coords = COORDS.astype(np.float32)
    coords[3, 0] = np.nan
    write_h5(tmp_path / "coords.h5", features=FEATURES, coords=coords)
    clam(tmp_path / "good.h5")
    (fault,) = scan_slide(tmp_path / "nan.h5").faults
    assert fault.kind == "features-not-finite"
    assert fault.found == "NaN or infinity in 2 of 37 rows, first in row 7"
    assert [f.kind for f in scan_slide(tmp_path / "coords.h5").faults] == ["coords-not-finite"]
    good = scan_slide(tmp_path / "good.h5")
    assert good.faults == ()
    assert good.largest == np.abs(FEATURES).max()
    assert good.largest_row == np.abs(FEATURES).max(1).argmax()


def test_a_checksum_names_the_numbers_not_the_file(tmp_path):
    sums = set()
    for case in ("clam", "batched", "compressed", "zarr", "pt", "pt-before-1.6"):
        write, name, *_ = WRITERS[case]
        write(tmp_path / f"{case}-{name}")
        sums.add(scan_slide(tmp_path / f"{case}-{name}").checksum)
    assert len(sums) == 1
