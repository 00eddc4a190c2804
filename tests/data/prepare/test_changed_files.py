"""Feature files that change after ``prepare``: noticed, whatever keeps its shape."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from builders.faults import faults_of
from builders.prepare_inputs import CASES

from gimp_fast import prepare
from gimp_fast.data import open_cohort
from gimp_fast.data.slides import prepared
from gimp_fast.data.slides.file_state import file_state

CASE = CASES[3]


@pytest.fixture(autouse=True)
def new_process(monkeypatch):
    monkeypatch.setattr(prepared, "_verified", {})


@pytest.fixture
def scans(monkeypatch) -> list[Path]:
    """Files whose whole content was read for comparison."""
    seen, scan = [], prepared.scan_slide
    monkeypatch.setattr(prepared, "scan_slide", lambda path: seen.append(path) or scan(path))
    return seen


def edit(file: Path, name: str, row: int = 2) -> None:
    with h5py.File(file, "a") as h5:
        h5[name][row] = h5[name][row] + 1


@pytest.mark.parametrize("name", ["features", "coords"])
@pytest.mark.parametrize("order", ["file", "hilbert"])
def test_an_edit_of_the_same_shape_is_noticed(inputs, name, order):
    assert prepare.main(inputs.argv("--order", order)) == 0
    edit(inputs.slides / f"{CASE}-01Z.h5", name)
    bag = open_cohort(inputs.out).bag(CASE)
    for read in (bag.read, bag.tensor, bag.coords):
        ((kind, message),) = faults_of(read)
        assert kind == "changed-file"
        assert f"slide '{CASE}-01Z'" in message
        assert "run `prepare` again" in message


def test_an_edit_while_the_cohort_is_open(inputs):
    assert prepare.main(inputs.argv()) == 0
    bag = open_cohort(inputs.out).bag(CASE)
    before = bag.read()
    file = inputs.slides / f"{CASE}-01Z.h5"
    os.utime(file)  # touched, not changed
    np.testing.assert_array_equal(bag.read(), before)
    edit(file, "features")
    assert faults_of(bag.read)[0][0] == "changed-file"


def test_files_as_they_were_are_not_read_again(inputs, scans):
    assert prepare.main(inputs.argv()) == 0
    cohort = open_cohort(inputs.out)
    for case in CASES:
        cohort.bag(case).read(0, 2)
    assert scans == []


def test_a_copied_file_is_compared_once(inputs, scans):
    assert prepare.main(inputs.argv()) == 0
    file = inputs.slides / f"{CASE}-01Z.h5"
    shutil.copy(file, file.with_name("copy"))
    os.replace(file.with_name("copy"), file)
    bag = open_cohort(inputs.out).bag(CASE)
    for _ in range(3):
        bag.read(0, 2)
    assert scans == [file]


def test_every_format_is_watched(inputs):
    """The state of a Zarr folder is that of the files in it."""
    zarr = pytest.importorskip("zarr")
    features = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    a, b = inputs.slides / f"{CASES[0]}-01Z", inputs.slides / f"{CASES[1]}-01Z"
    for path in (a, b):
        path.with_name(path.name + ".h5").unlink()
    group = zarr.open_group(str(a.with_name(a.name + ".zarr")), mode="w")
    group.create_array("features", data=features, chunks=(3, 4))
    tensor = b.with_name(b.name + ".pt")
    torch.save(torch.from_numpy(features), tensor)
    assert prepare.main(inputs.argv()) == 0
    cohort = open_cohort(inputs.out)
    for case in CASES[:2]:
        np.testing.assert_array_equal(cohort.bag(case).read(), features)
    group["features"][4] = 0.5
    torch.save(torch.from_numpy(features + 1), tensor)
    for case in CASES[:2]:
        assert faults_of(cohort.bag(case).read)[0][0] == "changed-file"


def test_verify_finds_changed_coordinates(inputs, capsys):
    assert prepare.main(inputs.argv()) == 0
    edit(inputs.slides / f"{CASE}-01Z.h5", "coords")
    capsys.readouterr()
    assert prepare.main(["--verify", str(inputs.out)]) == 2
    assert f"other coordinates of slide '{CASE}-01Z'" in capsys.readouterr().err


def test_a_file_that_became_a_trap_is_not_read_in_this_process(inputs):
    assert prepare.main(inputs.argv()) == 0
    file = inputs.slides / f"{CASE}-01Z.h5"
    secret = inputs.folder / "secret"
    secret.write_bytes(b"x" * 4000)
    with h5py.File(file, "w") as h5:
        h5.create_dataset("features", (8, 4), "f4", external=[(str(secret), 0, 128)])
    assert faults_of(open_cohort(inputs.out).bag(CASE).read)[0][0] == "outside-file"


def test_a_link_to_a_file_of_another_name(inputs):
    """As in the cache of a model hub, whose files are named by their content."""
    file = inputs.slides / f"{CASE}-01Z.h5"
    blob = inputs.folder / "blobs" / "0123abc"
    blob.parent.mkdir()
    file.rename(blob)
    file.symlink_to(blob)
    assert prepare.main(inputs.argv()) == 0
    assert open_cohort(inputs.out).bag(CASE).read().shape == (8, 4)


def test_the_state_of_a_file(tmp_path):
    file = tmp_path / "a"
    assert file_state(file) == file_state(Path("a\0b")) == ""
    file.write_bytes(b"12")
    os.utime(file, ns=(1, 5))
    assert file_state(file) == "2-5"
    before = file_state(tmp_path)
    (tmp_path / "b").touch()
    assert file_state(tmp_path) != before


def test_what_another_process_verified_is_trusted_until_the_next_change(inputs, scans, monkeypatch):
    assert prepare.main(inputs.argv()) == 0
    file, bag = inputs.slides / f"{CASE}-01Z.h5", open_cohort(inputs.out).bag(CASE)
    os.utime(file)
    bag.check()
    assert scans == [file]
    found = prepared.verified_files()
    assert found == {file: file_state(file)}
    monkeypatch.setattr(prepared, "_verified", {})  # as in another process
    prepared.trust(found)
    bag.read()
    assert scans == [file]
    edit(file, "features")
    assert [kind for kind, _ in faults_of(bag.read)] == ["changed-file"]
    assert scans == [file, file]
