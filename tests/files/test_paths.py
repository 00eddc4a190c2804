"""Hidden names, and names that leave a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.faults import kinds_of

from gimp_fast.files.paths import is_hidden, path_inside, visible


def test_names_that_begin_with_a_dot_are_hidden():
    names = ["b.h5", "._a.h5", "a.h5", ".DS_Store", "..h5"]
    assert [path.name for path in visible(map(Path, names))] == ["a.h5", "b.h5"]
    assert not is_hidden(Path(".cache/a.h5"))


@pytest.mark.parametrize("name", ["a", "a/b.h5", "a..b", "..a/b", "a b"])
def test_names_below_a_folder(name):
    assert path_inside(Path("/folder"), name, "here") == Path("/folder") / name


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "..", "../a", "a/../../b", "a/..", "a\0b", "..\\a", "\\\\host\\a"]
)
def test_names_that_leave_it(name):
    assert kinds_of(lambda: path_inside(Path("/folder"), name, "here")) == ["outside-file"]
