"""What every command says when it cannot go on, and its exit code."""

from __future__ import annotations

import errno
import io
import re
import sys
from pathlib import Path

import pytest
import torch

from gimp_fast.cli import command
from gimp_fast.errors import FaultError, Faults


def ending(error: BaseException, capsys) -> tuple[int, str]:
    """Exit code and standard error of a command that raises this error."""

    @command
    def main(argv):
        raise error

    code = main([])
    return code, capsys.readouterr().err


def many_faults(count: int) -> FaultError:
    faults = Faults()
    for number in range(count):
        faults.add("truncated-file", f"slide_{number}.h5", "half", "all")
    faults.add("missing-rna", "labels.csv", "no RNA", "some")
    return FaultError(faults.items, "the cohort")


ENDINGS = {
    "full disk": (OSError(errno.ENOSPC, "No space left on device"), "No space left.*make room"),
    "read only": (OSError(errno.EROFS, "Read-only file system", "a/b"), "a/b: Read-only"),
    "open files": (OSError(errno.EMFILE, "Too many open files", "c"), "c: Too many.*ulimit -n"),
    "memory of numpy": (MemoryError("Unable to allocate 9 GiB"), "memory ran out.*9 GiB"),
    "memory of torch": (
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        "memory ran out",
    ),
    "memory of a GPU": (torch.OutOfMemoryError("CUDA out of memory. Tried to"), "memory ran out"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_machine_that_lacks_something_is_one_message(name, capsys):
    error, expected = ENDINGS[name]
    code, said = ending(error, capsys)
    assert code == 2
    assert re.fullmatch(rf"error: .*{expected}.*\n", said)


def test_an_interrupt_is_one_line_and_130(capsys):
    assert ending(KeyboardInterrupt(), capsys) == (130, "interrupted\n")
    assert ending(KeyboardInterrupt("stopped; the state is saved"), capsys) == (
        130,
        "stopped; the state is saved\n",
    )


def test_an_error_of_the_program_is_not_hidden(capsys):
    with pytest.raises(RuntimeError, match="a bug"):
        ending(RuntimeError("a bug"), capsys)


def test_five_faults_of_a_kind_are_shown_and_all_are_in_a_file(capsys):
    code, said = ending(many_faults(300), capsys)
    assert code == 2
    assert said.count("[truncated-file]") == 6
    assert "… and 295 more [truncated-file]\n" in said
    assert "labels.csv: found no RNA" in said
    assert "by kind: 300 truncated-file, 1 missing-rna" in said
    listed = re.search(r"all 301 are listed in (\S+)\n", said)
    assert Path(listed[1]).read_text(encoding="utf-8").count("\n") == 301


def test_few_faults_are_shown_without_a_file(capsys):
    _, said = ending(many_faults(5), capsys)
    assert said.count("\n") == 8
    assert "listed in" not in said


def test_a_terminal_that_lacks_a_character_shows_its_code(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)

    @command
    def main(argv):
        print("0.5 µm")

    assert main([]) == 0
    stream.flush()
    assert stream.buffer.getvalue() == b"0.5 \\xb5m\n"
