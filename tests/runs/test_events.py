"""Events are written by a thread; what fails there is an error of the command, said once."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time

import pytest

from gimp_fast.errors import GimpError
from gimp_fast.runs.events import Events


def test_events_are_written_to_a_file(tmp_path):
    events = Events(tmp_path / "events", 0)
    events.add("a", 1.0, 1)
    events.close()
    (file,) = (tmp_path / "events").iterdir()
    assert file.stat().st_size > 50


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    hook, folder = threading.excepthook, tmp_path / "events"
    events = Events(folder, 0)
    shutil.rmtree(folder)
    with pytest.raises(GimpError, match="events: cannot be written"):
        _add_until_it_is_noticed(events)
    with contextlib.suppress(GimpError):
        events.close()
    assert "Traceback" not in capsys.readouterr().err
    assert threading.excepthook is hook


def _add_until_it_is_noticed(events: Events) -> None:
    for step in range(1000):
        events.add("a", 1.0, step)
        time.sleep(0.01)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(GimpError, match="cannot be written"):
        Events(tmp_path / "file" / "events", 0)
