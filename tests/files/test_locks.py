"""Two commands do not write one folder at the same time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from gimp_fast.errors import GimpError
from gimp_fast.files.locks import claim, is_locked

HOLD = """
import os, sys, time
from pathlib import Path
from gimp_fast.files.locks import claim
with claim(Path(sys.argv[1])):
    if os.fork() == 0:  # as a reading process of torch does
        print("held", flush=True)  # by the child: it has let go of the lock of its parent
        time.sleep(60)
        os._exit(0)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_folder_of_another_process_is_refused_until_it_ends(holder, tmp_path):
    with pytest.raises(GimpError, match="another command is at work there"), claim(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with claim(tmp_path):  # although a child of the process is still alive
        pass


def test_a_claim_makes_the_folder_and_leaves_no_file(tmp_path):
    folder = tmp_path / "a" / "b"
    with claim(folder):
        assert is_locked(folder / ".lock")
    assert list(folder.iterdir()) == []


def test_a_command_may_claim_its_folder_again(tmp_path):
    with claim(tmp_path), claim(tmp_path):
        assert is_locked(tmp_path / ".lock")


def test_another_thread_is_another_command(tmp_path):
    errors = []

    def other() -> None:
        try:
            with claim(tmp_path):
                pass
        except GimpError as error:
            errors.append(str(error))

    with claim(tmp_path):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(errors) == 1


def test_a_link_instead_of_the_lock_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").symlink_to(victim)
    with pytest.raises(GimpError, match="cannot be written"), claim(tmp_path / "out"):
        pass
    assert not victim.exists()
