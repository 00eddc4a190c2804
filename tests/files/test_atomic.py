"""Files that appear complete or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gimp_fast.errors import FaultError, GimpError
from gimp_fast.files.atomic import atomic_file


def write_half(path: Path, error: BaseException, seen: list[str]) -> None:
    with atomic_file(path) as partial:
        partial.write_bytes(b"half")
        seen += [file.name for file in path.parent.iterdir() if file != path]
        raise error


def test_an_interrupted_file_never_has_the_name_of_a_finished_one(tmp_path):
    path = tmp_path / "a.h5"
    seen = []
    with pytest.raises(KeyboardInterrupt):
        write_half(path, KeyboardInterrupt(), seen)
    assert len(seen) == 1
    assert seen[0].endswith(".partial")
    assert list(tmp_path.iterdir()) == []


def test_a_fault_keeps_the_file_of_an_earlier_run(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(b"whole")
    with pytest.raises(FaultError):
        write_half(path, FaultError.of("test", path, "a", "b"), [])
    assert path.read_bytes() == b"whole"
    assert len(list(tmp_path.iterdir())) == 1


def test_leftovers_of_killed_processes_are_removed_and_those_of_live_ones_kept(tmp_path):
    dead, live, other = (
        tmp_path / f".{name}.partial" for name in ("a.h5.x-1", "a.h5.x-2", "b.h5.x")
    )
    for file in (dead, live, other):
        file.write_bytes(b"half")
    for file in (dead, other):
        os.utime(file, (0, 0))
    with atomic_file(tmp_path / "a.h5") as partial:
        partial.write_bytes(b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a.h5", live.name, other.name}


def fill_the_disk(file: Path) -> None:
    with atomic_file(file) as partial:
        partial.write_text("half", encoding="utf-8")
        raise OSError(28, "No space left on device")


def test_a_full_disk_keeps_what_was_there(tmp_path):
    file = tmp_path / "x.json"
    file.write_text("before", encoding="utf-8")
    with pytest.raises(GimpError, match=r"No space left on device.*unchanged"):
        fill_the_disk(file)
    assert file.read_text(encoding="utf-8") == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
