"""Files that appear complete or not at all."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gimp_fast.errors import FaultError, GimpError
from gimp_fast.files.atomic import (
    append_line,
    atomic_file,
    link_over,
    new_folder,
    open_new,
    write_text,
)


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


def plant_links(folder: Path, file: Path, victim: Path) -> None:
    """Links to ``victim`` at every name that could be guessed."""
    names = (f".{file.name}.partial", f".{file.name}.link", f"{file.name}.tmp")
    host = f"{socket.gethostname()}-{os.getpid()}"
    for name in (*names, f".{file.name}.{host}.partial"):
        (folder / name).symlink_to(victim)


@pytest.mark.parametrize("kind", ["file", "text", "link over"])
def test_a_link_that_waits_at_a_temporary_name_is_not_followed(tmp_path, kind):
    victim, file = tmp_path / "victim", tmp_path / "out" / "a.json"
    victim.write_text("mine", encoding="utf-8")
    file.parent.mkdir()
    plant_links(file.parent, file, victim)
    source = tmp_path / "source"
    source.write_text("new", encoding="utf-8")
    if kind == "file":
        with atomic_file(file) as partial:
            partial.write_text("new", encoding="utf-8")
    elif kind == "text":
        write_text(file, "new")
    else:
        link_over(source, file)
    assert victim.read_text(encoding="utf-8") == "mine"
    assert file.read_text(encoding="utf-8") == "new"
    assert not file.is_symlink()


def test_a_link_at_the_final_name_is_replaced_and_not_followed(tmp_path):
    victim, file = tmp_path / "victim", tmp_path / "a.json"
    victim.write_text("mine", encoding="utf-8")
    file.symlink_to(victim)
    write_text(file, "new")
    assert victim.read_text(encoding="utf-8") == "mine"
    assert (file.is_symlink(), file.read_text(encoding="utf-8")) == (False, "new")


def test_nothing_is_appended_through_a_link(tmp_path):
    victim, file = tmp_path / "victim", tmp_path / "metrics.jsonl"
    victim.write_text("mine", encoding="utf-8")
    file.symlink_to(victim)
    with pytest.raises(GimpError, match=r"metrics\.jsonl: cannot be written"):
        append_line(file, "new")
    assert victim.read_text(encoding="utf-8") == "mine"


def test_a_new_file_is_not_written_where_something_is(tmp_path):
    victim, file = tmp_path / "victim", tmp_path / "a.npy"
    victim.write_text("mine", encoding="utf-8")
    file.symlink_to(victim)
    with pytest.raises(FileExistsError), open_new(file, "wb"):
        pass
    assert victim.read_text(encoding="utf-8") == "mine"


def test_two_temporary_names_of_a_process_differ(tmp_path):
    with atomic_file(tmp_path / "a") as first, atomic_file(tmp_path / "a") as second:
        assert first != second
        first.write_bytes(b"1")
        second.write_bytes(b"2")
    assert (tmp_path / "a").read_bytes() == b"1"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_any_file_of_the_user(tmp_path, umask):
    before = os.umask(umask)
    try:
        with atomic_file(tmp_path / "a") as partial:
            partial.write_bytes(b"1")
            partial.chmod(0o600)  # as some libraries do
        with new_folder(tmp_path / "b"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o777 & ~umask


def test_a_name_as_long_as_a_file_system_allows(tmp_path):
    file = tmp_path / ("é" * 125 + ".json")
    write_text(file, "1")
    write_text(file, "2")
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_folder_that_another_process_writes_is_refused(tmp_path):
    out = tmp_path / "out"
    with (
        new_folder(out),
        pytest.raises(GimpError, match="another command is writing it"),
        new_folder(out),
    ):
        pass
    assert list(out.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_is_locked_until_it_has_its_name(tmp_path, monkeypatch):
    locked, rename = [], os.replace

    def see(source: Path, target: Path) -> None:
        locked.append([file.name for file in Path(source).iterdir()])
        rename(source, target)

    monkeypatch.setattr(os, "replace", see)
    with new_folder(tmp_path / "out"):
        pass
    # A command that is killed now is known by its lock file; the next one removes what it left.
    assert locked == [[".lock"]]
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("removals", range(4))
def test_what_a_killed_removal_left_is_removed_by_the_next_command(tmp_path, removals):
    left = tmp_path / ".out.partial-0123456789abcdef"
    (left / "splits").mkdir(parents=True)
    for name in (".lock", "a.json", "splits/b.csv"):
        (left / name).write_text("")
    child = os.fork()
    if child == 0:
        done = iter(range(removals))

        def die_instead(event: str, _: tuple) -> None:
            if event in ("os.remove", "os.rmdir") and next(done, None) is None:
                os._exit(0)

        sys.addaudithook(die_instead)
        with new_folder(tmp_path / "out"):
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert left.is_dir()
    with new_folder(tmp_path / "out"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


LIMITED = """
import resource, sys
from pathlib import Path
import h5py, numpy as np
from gimp_fast.errors import GimpError
from gimp_fast.files.atomic import (
    append_line,
    atomic_file,
    link_over,
    new_folder,
    open_new,
    write_text,
)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
file = Path(sys.argv[1])
try:
    with atomic_file(file) as partial:
        if sys.argv[2] == "h5":
            with h5py.File(partial, "w") as h5:
                h5["features"] = np.ones((1000, 100))
        else:
            partial.write_bytes(bytes(100_000))
except GimpError as error:
    print(error)
"""


@pytest.mark.parametrize("kind", ["h5", "bytes"])
def test_a_disk_that_is_really_full(tmp_path, kind):
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "a"), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "a: cannot be written" in done.stdout
    assert "File too large" in done.stdout
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
