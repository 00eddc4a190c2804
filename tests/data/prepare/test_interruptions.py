"""Interrupted or impossible writing leaves no cohort, or a whole one."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from builders.prepare_inputs import CASES

from gimp_fast import prepare
from gimp_fast.data import open_cohort


def test_a_failed_write_leaves_nothing(raw, capsys, monkeypatch):
    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gimp_fast.data.prepare.cohort_writer.write_table", full_disk)
    assert prepare.main(raw.argv()) == 2
    assert "No space left" in capsys.readouterr().err
    assert sorted(path.name for path in raw.folder.parent.iterdir()) == ["raw"]


KILLED_WRITE = """
import sys, time
import gimp_fast.data.prepare.cohort_writer as writer
from gimp_fast import prepare
from pathlib import Path

def stuck(*args):
    Path(sys.argv[1]).touch()
    time.sleep(600)

writer._manifest = stuck
prepare.main(sys.argv[2:])
"""


def test_a_kill_while_writing_leaves_no_cohort(raw):
    mark = raw.folder.parent / "mark"
    process = subprocess.Popen([sys.executable, "-c", KILLED_WRITE, str(mark), *raw.argv()])
    try:
        deadline = time.monotonic() + 120
        while not mark.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert mark.exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not raw.out.exists()
    partial = [path for path in raw.folder.parent.iterdir() if path.name.startswith(".cohort")]
    assert len(partial) == 1
    assert not (partial[0] / "cohort.json").exists()
    assert prepare.main(raw.argv()) == 0


FULL_DISK = """
import resource, sys
from gimp_fast import prepare
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.exit(prepare.main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 3000, 6000])
def test_a_full_disk_leaves_nothing(inputs, limit):
    """No file may grow beyond the limit: a write fails in the middle, as on a full disk."""
    argv = [sys.executable, "-c", FULL_DISK, str(limit), *inputs.argv("--pack", "fp32")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in inputs.folder.iterdir()) == ["labels.csv", "rna.tsv", "slides"]


KILLED = """
import os, signal, sys
import gimp_fast.data.prepare.cohort_writer as writer
import gimp_fast.files.atomic as atomic
import sklearn.model_selection, torch
import gimp_fast.data.slides.h5
from gimp_fast import prepare, verbs

def kill_at(last):
    steps = iter(range(10**6))

    def counted(function):
        def call(*args, **options):
            if next(steps) == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)
        return call

    for name in ("write_table", "write_store", "_manifest"):
        setattr(writer, name, counted(getattr(writer, name)))
    atomic._flush_path = counted(atomic._flush_path)
    os.replace = counted(os.replace)

# A child for each step: the parent has imported everything, and runs nothing itself.
for last in map(int, sys.argv[1].split(",")):
    child = os.fork()
    if child == 0:
        kill_at(last)
        os._exit(prepare.main([arg.replace("LAST", str(last)) for arg in sys.argv[2:]]))
    _, status = os.waitpid(child, 0)
    print("status", last, os.waitstatus_to_exitcode(status), flush=True)
"""


@pytest.mark.slow
def test_a_kill_at_any_step_of_writing_leaves_no_cohort_that_opens_by_half(inputs):
    """Killed before the rename there is no cohort, after it there is a whole one."""
    steps = (0, 1, 4, 7, 8, 12, 19, 20, 25, 40)
    argv = inputs.argv("--pack", out=inputs.folder / "outLAST")
    command = [sys.executable, "-c", KILLED, ",".join(map(str, steps)), *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    codes = {
        int(n): int(code) for n, code in re.findall(r"^status (\d+) (-?\d+)$", done.stdout, re.M)
    }
    assert set(codes) == set(steps)
    opened = []
    for last, code in codes.items():
        out = inputs.folder / f"out{last}"
        if code == 0:
            assert open_cohort(out).bag(CASES[0]).read().shape == (5, 4)
            continue
        assert code == -signal.SIGKILL
        opened.append(out.exists())
        if out.exists():
            assert prepare.main(["--verify", str(out)]) == 0
    assert opened[0] is False
    assert opened.count(False) >= 5


def test_what_a_killed_process_left_is_removed_by_the_next(inputs):
    left = inputs.folder / ".out.partial-abc"
    left.mkdir()
    (left / ".lock").touch()
    (left / "store.safetensors").write_bytes(b"half")
    assert prepare.main(inputs.argv()) == 0
    assert not left.exists()


BUSY = """
import sys, time
from pathlib import Path
from gimp_fast.files.atomic import new_folder
with new_folder(Path(sys.argv[1])):
    print("writing", flush=True)
    time.sleep(600)
"""


def test_what_another_process_is_writing_is_left_alone(inputs, capsys):
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY, str(inputs.out)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "writing\n"
        assert prepare.main(inputs.argv()) == 2
        assert "another command is writing it" in capsys.readouterr().err
        assert len(list(inputs.folder.glob(".out.partial-*"))) == 1
    finally:
        process.kill()
        process.wait()
    assert prepare.main(inputs.argv()) == 0


def test_too_little_space_is_said_before_packing(inputs, capsys, monkeypatch):
    usage = shutil.disk_usage(inputs.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    assert prepare.main(inputs.argv("--pack")) == 2
    assert "[disk-space]" in capsys.readouterr().err
    assert not inputs.out.exists()
