"""Files that several machines use, the code that they must share, and locks that are waited for."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from gimp_fast.errors import GimpError
from gimp_fast.files.locks import claim, claim_in_turn
from gimp_fast.tasks.identity import identity
from gimp_fast.tasks.shared_files import appears, paths_in, with_absolute_paths


@dataclass(frozen=True)
class Inner:
    file: Path | None = None
    size: int = 3


@dataclass(frozen=True)
class Outer:
    folder: Path
    several: tuple[Path, ...] = ()
    inner: Inner = Inner()
    name: str = "a/b"


def test_paths_become_absolute_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = Outer(Path("a"), (Path("b"), Path("/c")), Inner(Path("d/e")))
    expected = Outer(tmp_path / "a", (tmp_path / "b", Path("/c")), Inner(tmp_path / "d/e"))
    assert with_absolute_paths(given) == expected
    assert with_absolute_paths(Outer(Path("/a"))) == Outer(Path("/a"))
    assert with_absolute_paths(None) is None
    assert paths_in(given) == [Path("a"), Path("b"), Path("/c"), Path("d/e")]


def test_a_file_that_comes_late_and_one_that_never_comes(tmp_path):
    timer = threading.Timer(0.3, (tmp_path / "late").touch)
    timer.start()
    assert appears(tmp_path / "late")
    timer.join()
    assert not appears(tmp_path / "never", seconds=0.2)
    assert not appears(tmp_path / "no-folder" / "never", seconds=0.2)


def test_identities_name_what_differs():
    mine = identity()
    assert mine.differences(mine) == []
    other = replace(mine, torch="1.0", code="0" * 64, plugins={"mine.py": "sha256:" + "a" * 64})
    assert mine.differences(other) == [
        f"code of gimp_fast 000000000000 (here {mine.code[:12]})",
        f"torch 1.0 (here {mine.torch})",
        "plugin mine.py sha256:aaaaaaaaaaaa (here none)",
    ]


def test_a_claim_waits_for_its_turn(tmp_path):
    order, taken, free = [], threading.Event(), threading.Event()

    def hold():
        with claim(tmp_path):
            taken.set()
            free.wait(60)
            order.append("first")

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait(60)
    threading.Timer(0.3, free.set).start()
    with claim_in_turn(tmp_path):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_a_claim_does_not_wait_for_ever(tmp_path):
    taken, free = threading.Event(), threading.Event()

    def hold():
        with claim(tmp_path):
            taken.set()
            free.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait(60)
    try:
        with (
            pytest.raises(GimpError, match=r"another command is at work there.*remove \.lock"),
            claim_in_turn(tmp_path, patience=0.2),
        ):
            pass
    finally:
        free.set()
        thread.join()
