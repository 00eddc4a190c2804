"""Progress on a terminal and in a log file."""

from __future__ import annotations

import io
import sys

import pytest

from gimp_fast.files.progress import Progress, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_file_gets_whole_lines_and_no_carriage_return(capsys):
    assert list(progress("abc", "checking slides", 3, "slide", every=0)) == ["a", "b", "c"]
    said = capsys.readouterr().err
    assert "\r" not in said
    lines = said.splitlines()
    assert lines[0] == "checking slides: 3 slides"
    assert lines[1].startswith("checking slides: 1 of 3 slides, ")
    assert lines[3] == "checking slides: 3 of 3 slides"


def test_a_long_step_says_one_line_before_a_minute_is_over(capsys):
    list(progress(range(10_000), "checking slides", 10_000, "slide"))
    assert capsys.readouterr().err == "checking slides: 10000 slides\n"


def test_nothing_is_said_of_the_time_left_before_something_is_done(capsys):
    with Progress("packing", 4 * 10**9, "B", done=10**9, every=0) as shown:
        shown.update(0, "x")
    assert capsys.readouterr().err.splitlines() == [
        "packing: 4.00 GB",
        "packing: 1.00 of 4.00 GB, x",
    ]


def test_a_terminal_gets_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    list(progress("ab", "checking slides", 2, "slide"))
    assert "checking slides:" in terminal.getvalue()
    assert "\r" in terminal.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_hidden_progress_says_nothing(stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    assert list(progress("ab", "checking", 2, "slide", shown=False)) == ["a", "b"]
    assert sys.stderr.getvalue() == ""
