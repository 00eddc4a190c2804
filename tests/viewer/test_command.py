"""The view command: what it says, where it stops, and the pages that heatmap writes for it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from gimp_fast import heatmap, view


def _hears_ctrl_c() -> None:
    """Tests that run in the background of a shell inherit that it is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_it_serves_until_it_is_interrupted(map_folder, image_folder):
    command = [sys.executable, "-m", "gimp_fast.view", str(map_folder), "--no-browser"]
    process = subprocess.Popen(
        [*command, "--slide-images", str(image_folder)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", preexec_fn=_hears_ctrl_c,
    )  # fmt: skip
    try:
        lines = []
        while not lines or not lines[-1].startswith("Ctrl-C"):
            lines.append(process.stdout.readline())
            assert lines[-1], process.stderr.read()
        assert lines[0] == f"{map_folder}: 3 patients\n"
        url = re.fullmatch(r"page: (http://127\.0\.0\.1:\d+/[\w-]{32,}/)\n", lines[1])[1]
        with urllib.request.urlopen(f"{url}catalogue", timeout=60) as answer:
            assert b'"case_id": "A"' in answer.read()
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, said, errors) == (0, "ended\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: found no heatmaps.json; expected a folder that"),
        (["{maps}", "--slide-images", "nowhere"], "nowhere: found no such folder"),
    ],
)
def test_bad_requests_end_with_two_and_one_message(map_folder, arguments, message, capsys):
    assert view.main([argument.format(maps=map_folder) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


@pytest.mark.parametrize("port", ["-1", "65536", "http", "8.5"])
def test_a_port_is_a_whole_number(port, capsys):
    with pytest.raises(SystemExit) as stop:
        view.main(["maps", f"--port={port}"])
    assert stop.value.code == 2
    assert "expected a number from 0 to 65535" in capsys.readouterr().err


@pytest.mark.parametrize("asked", [True, False], ids=["pages", "no-pages"])
def test_heatmap_writes_pages_unless_told_not_to(gimp_run, tmp_path, asked, capsys):
    out = tmp_path / "maps"
    arguments = ["--run", str(gimp_run), "--out", str(out), "--max-patients", "2"]
    assert heatmap.main([*arguments, "--device", "cpu", *([] if asked else ["--no-pages"])]) == 0
    pages = list(out.glob("*/view.html"))
    assert bool(pages) is asked
    assert ("that can be mailed" in capsys.readouterr().out) is asked
