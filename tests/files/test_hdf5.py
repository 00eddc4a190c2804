"""An HDF5 file gives its own values, and says which were never written."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from builders.faults import kinds_of
from h5py import h5d, h5p, h5s, h5t

from gimp_fast.errors import FaultError
from gimp_fast.files.hdf5 import check_all_stored, check_stored, member

VALUES = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def linked(tmp_path) -> Path:
    with h5py.File(tmp_path / "other.h5", "w") as h5:
        h5["secret"] = VALUES
        h5["group/secret"] = VALUES
    file = tmp_path / "linked.h5"
    with h5py.File(file, "w") as h5:
        h5["plain"] = VALUES
        h5["group/plain"] = VALUES
        h5["group/itself"] = h5["group"]
        h5["group/again"] = h5["group"]
        h5["soft"] = h5py.SoftLink("group/plain")
        h5["group/soft"] = h5py.SoftLink("/plain")
        h5["soft_group"] = h5py.SoftLink("/group")
        h5["broken"] = h5py.SoftLink("nothing")
        h5["loop"] = h5py.SoftLink("loop")
        h5["outside"] = h5py.ExternalLink("other.h5", "/secret")
        h5["outside_group"] = h5py.ExternalLink("other.h5", "/group")
        h5["soft_outside"] = h5py.SoftLink("/outside_group/secret")
        h5["holder/outside"] = h5py.ExternalLink("other.h5", "/secret")
    return file


INSIDE = ["plain", "/plain", "group/plain", "group/itself/again/plain", "soft", "group/soft",
          "soft_group/plain", "./group//plain"]  # fmt: skip


@pytest.mark.parametrize("name", INSIDE)
def test_names_and_links_inside_the_file(linked, name):
    with h5py.File(linked) as file:
        np.testing.assert_array_equal(member(file, name)[:], VALUES)


@pytest.mark.parametrize("name", ["nothing", "broken", "plain/deeper", "group/nothing"])
def test_what_is_not_there(linked, name):
    with h5py.File(linked) as file:
        assert member(file, name) is None


@pytest.mark.parametrize(
    "name", ["outside", "outside_group/secret", "soft_outside", "holder/outside", "loop"]
)
def test_a_link_out_of_the_file_is_not_followed(linked, name):
    with h5py.File(linked) as file:
        assert kinds_of(lambda: member(file, name)) == ["outside-file"]


def test_all_arrays_of_a_group(linked):
    with h5py.File(linked) as file:
        check_all_stored("it", member(file, "group"))
        assert kinds_of(lambda: check_all_stored("it", member(file, "holder"))) == ["outside-file"]


def external(file: h5py.File, folder: Path) -> h5py.Dataset:
    raw = folder / "raw"
    raw.write_bytes(VALUES.tobytes())
    shape, dtype = VALUES.shape, VALUES.dtype
    return file.create_dataset("x", shape, dtype, external=[(str(raw), 0, h5py.h5f.UNLIMITED)])


def virtual(file: h5py.File, folder: Path) -> h5py.Dataset:
    with h5py.File(folder / "source.h5", "w") as source:
        source["x"] = VALUES
    layout = h5py.VirtualLayout(VALUES.shape, VALUES.dtype)
    layout[:] = h5py.VirtualSource(str(folder / "source.h5"), "x", VALUES.shape)
    return file.create_virtual_dataset("x", layout)


@pytest.mark.parametrize("write", [external, virtual])
def test_values_in_other_files_are_refused(tmp_path, write):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        array = write(file, tmp_path)
        np.testing.assert_array_equal(array[:], VALUES)  # HDF5 gives them without a word
        with pytest.raises(FaultError, match=r"values in other files \('.*(raw|source\.h5)'\)"):
            check_stored("a.h5[x]", array)


def compact(file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset in the header of the file, which h5py's own functions do not make."""
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_layout(h5d.COMPACT)
    space = h5s.create_simple(VALUES.shape)
    h5d.create(file.id, name.encode(), h5t.IEEE_F32LE, space, properties)
    return file[name]


LAYOUTS = {
    "contiguous": lambda file: file.create_dataset("x", VALUES.shape, "f4"),
    "chunked": lambda file: file.create_dataset("x", VALUES.shape, "f4", chunks=(2, 3)),
    "compressed": lambda file: file.create_dataset(
        "x", VALUES.shape, "f4", chunks=(2, 3), compression="gzip"
    ),
    "compact": lambda file: compact(file, "x"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_written_values_pass_in_every_layout(tmp_path, layout):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        array = LAYOUTS[layout](file)
        array[:] = VALUES
        file.flush()
        check_stored("a.h5[x]", array)


@pytest.mark.parametrize("layout", sorted(LAYOUTS.keys() - {"compact"}))
def test_values_that_were_never_written(tmp_path, layout):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        array = LAYOUTS[layout](file)
        assert kinds_of(lambda: check_stored("a.h5[x]", array)) == ["truncated-file"]
