"""A feature file gives the numbers that are stored in it, and no other file's."""

from __future__ import annotations

import gc
import json
import pickle
import warnings
import zipfile
from pathlib import Path

import h5py
import pytest
from builders.slide_files import COORDS, FEATURES, clam, write_h5, zarr_group

from gimp_fast.data.slides import is_slide, open_slide
from gimp_fast.data.slides.scan import scan_slide
from gimp_fast.errors import FaultError
from gimp_fast.wsi.feature_file import read_coords

SECRET = (
    "a file of this computer that is nobody's features, long enough to be read as numbers " * 20
)


def kinds(file: Path) -> list[str]:
    return [fault.kind for fault in scan_slide(file).faults]


def external_storage(file: Path) -> None:
    secret = file.with_name("secret.txt")
    secret.write_text(SECRET, encoding="utf-8")
    with h5py.File(file, "w") as h5:
        h5.create_dataset("features", (20, 5), "f4", external=[(str(secret), 0, 400)])


def external_without_the_file(file: Path) -> None:
    with h5py.File(file, "w") as h5:
        h5.create_dataset("features", (20, 5), "f4", external=[("/nowhere", 0, 400)])


def external_coords(file: Path) -> None:
    write_h5(file, features=FEATURES)
    raw = file.with_name("raw")
    raw.write_bytes(COORDS.tobytes())
    with h5py.File(file, "a") as h5:
        h5.create_dataset("coords", COORDS.shape, "i8", external=[(str(raw), 0, COORDS.nbytes)])


def link(path: str) -> object:
    def write(file: Path) -> None:
        clam(file.with_name("other.h5"))
        with h5py.File(file, "w") as h5:
            h5["features"] = h5py.ExternalLink("other.h5", path)

    return write


def soft_link_through_another_file(file: Path) -> None:
    clam(file.with_name("other.h5"))
    with h5py.File(file, "w") as h5:
        h5["door"] = h5py.ExternalLink("other.h5", "/")
        h5["features"] = h5py.SoftLink("door/features")


def linked_coords(file: Path) -> None:
    clam(file.with_name("other.h5"))
    write_h5(file, features=FEATURES)
    with h5py.File(file, "a") as h5:
        h5["coords"] = h5py.ExternalLink("other.h5", "/coords")


def virtual_rows(file: Path) -> None:
    clam(file.with_name("other.h5"))
    layout = h5py.VirtualLayout(FEATURES.shape, "f4")
    layout[:] = h5py.VirtualSource("other.h5", "features", FEATURES.shape)
    with h5py.File(file, "w") as h5:
        h5.create_virtual_dataset("features", layout)


def zarr_chunk_outside(file: Path) -> None:
    zarr_group(file)
    chunk = next(path for path in (file / "features" / "c").rglob("*") if path.is_file())
    chunk.rename(file.with_name("chunk"))
    chunk.symlink_to(file.with_name("chunk"))


def zarr_array_outside(file: Path) -> None:
    zarr_group(file)
    (file / "features").rename(file.with_name("features"))
    (file / "features").symlink_to(file.with_name("features"))


def zip_that_leaves(name: str) -> object:
    def write(file: Path) -> None:
        zarr_group(file)
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr(name, b"x")

    return write


OUTSIDE = {
    "external-storage": ("s.h5", external_storage),
    "external-storage-gone": ("s.h5", external_without_the_file),
    "external-coords": ("s.h5", external_coords),
    "external-link": ("s.h5", link("/features")),
    "soft-link-outside": ("s.h5", soft_link_through_another_file),
    "linked-coords": ("s.h5", linked_coords),
    "virtual": ("s.h5", virtual_rows),
    "zarr-chunk": ("s.zarr", zarr_chunk_outside),
    "zarr-array": ("s.zarr", zarr_array_outside),
    "zip-dots": ("s.zarr.zip", zip_that_leaves("../x")),
    "zip-absolute": ("s.zarr.zip", zip_that_leaves("/x")),
    "zip-inner-dots": ("s.zarr.zip", zip_that_leaves("features/../../x")),
}


@pytest.mark.parametrize("case", OUTSIDE)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_values_of_other_files_are_refused(tmp_path, case):
    name, write = OUTSIDE[case]
    write(tmp_path / name)
    assert kinds(tmp_path / name) == ["outside-file"]


def test_links_inside_the_file_are_followed(tmp_path):
    with h5py.File(tmp_path / "s.h5", "w") as h5:
        h5["level_0/features"] = FEATURES
        h5["features"] = h5py.SoftLink("level_0/features")
        h5["another"] = h5py.ExternalLink("elsewhere.h5", "/")  # not read: it does no harm
    zarr_group(tmp_path / "s.zarr")
    chunk = next(p for p in (tmp_path / "s.zarr/features/c").rglob("*") if p.is_file())
    chunk.rename(tmp_path / "s.zarr" / "chunk")
    chunk.symlink_to(tmp_path / "s.zarr" / "chunk")
    (tmp_path / "linked.h5").symlink_to(tmp_path / "s.h5")
    sums = {scan_slide(tmp_path / name).checksum for name in ("s.h5", "s.zarr", "linked.h5")}
    assert len(sums) == 1
    assert "" not in sums


def test_coordinates_for_extraction_are_the_file_s_own(tmp_path):
    external_coords(tmp_path / "s.h5")
    linked_coords(tmp_path / "t.h5")
    for name in ("s.h5", "t.h5"):
        with pytest.raises(Exception, match="outside-file"):
            read_coords(tmp_path / name)


class Touch:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("key", ["filters", "compressor"])
def test_chunks_that_are_pickles_are_not_read(tmp_path, key):
    zarr = pytest.importorskip("zarr")
    file, effect = tmp_path / "s.zarr", tmp_path / "effect"
    group = zarr.open_group(str(file), mode="w", zarr_format=2)
    group.create_array("features", data=FEATURES, chunks=FEATURES.shape, compressors=None)
    description = file / "features" / ".zarray"
    facts = json.loads(description.read_text(encoding="utf-8"))
    codec = {"id": "pickle", "protocol": 5}
    facts[key] = codec if key == "compressor" else [{"id": "zlib", "level": 1}, codec]
    description.write_text(json.dumps(facts), encoding="utf-8")
    (file / "features" / "0.0").write_bytes(pickle.dumps(Touch(effect)))
    (kind,) = kinds(file)
    # zarr 3.0 opens such an array; later ones refuse it themselves.
    assert kind in ("unsafe-pickle", "unreadable-file")
    assert not effect.exists()


def test_members_that_belong_to_no_array_are_no_matter(tmp_path):
    file = tmp_path / "s.zarr.zip"
    zarr_group(file)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("notes/\x1b[31m", b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_slide(file) as slide:
            assert slide.read(0, 3).shape == (3, 5)


def test_two_damaged_arrays_are_one_fault(tmp_path, caplog):
    file = tmp_path / "s.zarr"
    zarr_group(file)
    for name in ("features", "coords"):
        (file / name / "zarr.json").write_text("{", encoding="utf-8")
    with pytest.raises(FaultError, match="unreadable-file"):
        open_slide(file)
    gc.collect()  # asyncio reports what nobody asked for when it is collected
    assert caplog.records == []


def test_hidden_files_are_no_slides():
    assert is_slide(Path("a.h5"))
    assert is_slide(Path(".cache/a.zarr.zip"))
    for name in ("._a.h5", ".a.pt", "._a.zarr", ".h5"):
        assert not is_slide(Path(name))


def test_a_scan_raises_nothing(tmp_path):
    for name in ("missing.h5", "no\0name.h5", "folder.pt", "a" * 300 + ".h5", "x.npy"):
        if name == "folder.pt":
            (tmp_path / name).mkdir()
        assert scan_slide(tmp_path / name).faults
