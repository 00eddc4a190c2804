"""A reader in another process may crash or hang."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from builders.faults import faults_of
from builders.rna_files import (
    write_text,
)

from gimp_fast.errors import GimpError
from gimp_fast.files import isolated

READER = """
import os, time

def crash(path):
    os.abort()

def hang(path):
    time.sleep(600)

def compute(path):
    while True:
        pass

def wait(path):
    time.sleep(1)
    return 43

def answer(path):
    print("printing is no answer")
    return 42

def own_process(path):
    time.sleep(0.1)
    return os.getpid()
"""


def test_a_reader_may_crash_or_hang(tmp_path, monkeypatch):
    file = write_text(tmp_path / "bad_reader.py", READER)
    monkeypatch.syspath_prepend(tmp_path)
    isolated.close_workers()
    import bad_reader

    assert isolated.run_isolated(bad_reader.answer, file) == 42
    ((kind, message),) = faults_of(lambda: isolated.run_isolated(bad_reader.crash, file))
    assert kind == "unreadable-file"
    assert "a crash of the library" in message
    assert isolated.run_isolated(bad_reader.answer, file) == 42
    monkeypatch.setattr(isolated, "SECONDS", 0.5)
    ((kind, message),) = faults_of(lambda: isolated.run_isolated(bad_reader.compute, file))
    assert "of computing" in message
    # Only its own computing counts: on a busy machine, a sound file takes longer by the clock.
    assert isolated.run_isolated(bad_reader.wait, file) == 43
    monkeypatch.setattr(isolated, "PATIENCE", 1)
    ((kind, message),) = faults_of(lambda: isolated.run_isolated(bad_reader.hang, file))
    assert "no end of reading it after 1 s;" in message


def test_a_forked_process_has_readers_of_its_own(tmp_path, monkeypatch):
    file = write_text(tmp_path / "bad_reader.py", READER)
    monkeypatch.syspath_prepend(tmp_path)
    isolated.close_workers()
    import bad_reader

    mine = isolated.run_isolated(bad_reader.own_process, file)

    def ask(answers):
        answers.put(isolated.run_isolated(bad_reader.own_process, file))

    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    children = [context.Process(target=ask, args=(answers,)) for _ in range(3)]
    for child in children:
        child.start()
    again = isolated.run_isolated(bad_reader.own_process, file)
    theirs = [answers.get(timeout=120) for _ in children]
    for child in children:
        child.join()
    assert again == mine
    assert len({mine, *theirs}) == 4


def test_a_process_that_cannot_be_started(tmp_path, monkeypatch):
    isolated.close_workers()

    def refuse(*args, **kwargs):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(isolated.subprocess, "Popen", refuse)
    with pytest.raises(GimpError, match="no process could be started"):
        isolated.run_isolated(len, write_text(tmp_path / "a", "b"))


def test_a_folder_has_the_time_of_all_its_files(tmp_path):
    (tmp_path / "inner").mkdir()
    for name in ("a", "inner/b"):
        (tmp_path / name).write_bytes(b"x" * 1_000_000)
    assert isolated._size(tmp_path) >= 2_000_000
    assert isolated._size(tmp_path / "nothing") == 0


def test_a_relative_path_is_that_of_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "here.txt").write_text("found")
    isolated.run_isolated(Path.read_text, tmp_path / "here.txt")  # by a process that is kept
    monkeypatch.chdir(tmp_path)
    assert isolated.run_isolated(Path.read_text, Path("here.txt")) == "found"
