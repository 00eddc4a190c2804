"""A reader in another process may crash or hang."""

from __future__ import annotations

from builders.faults import faults_of
from builders.rna_files import (
    write_text,
)

from gimp_fast.files import isolated

READER = """
import os, time

def crash(path):
    os.abort()

def hang(path):
    time.sleep(600)

def answer(path):
    print("printing is no answer")
    return 42
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
    ((kind, message),) = faults_of(lambda: isolated.run_isolated(bad_reader.hang, file))
    assert "no end of reading it" in message
