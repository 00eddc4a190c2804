"""Extraction on a cluster: the same files as in one process, though a worker dies."""

from __future__ import annotations

import csv
import threading
from pathlib import Path

import pytest
from builders.clusters import kill, wait_until
from builders.slides import write_slide

from gimp_fast.extract import main

SLIDES = [f"slide-{number}" for number in range(7)]

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path) -> Path:
    """Seven slides that are fine, each with other tissue, and one without any."""
    pytest.importorskip("openslide")
    pytest.importorskip("tifffile")
    slides = tmp_path / "slides"
    for number, name in enumerate(SLIDES):
        side = 512 + 64 * number
        write_slide(slides, f"{name}.tif", size=(1400, 1300), tissue=[(256, 256, side, side)])
    write_slide(slides, "blank.tif", size=(1400, 1300), tissue=[])
    return slides


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [row | {"seconds": ""} for row in csv.DictReader(file)]


def test_a_worker_that_dies_changes_no_file(folder, tmp_path, cluster, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # of which workers know nothing
    out, one = Path("out"), tmp_path / "one"
    arguments = ["--slides", "slides", "--out", str(out), "--random-weights", "--workers", "1"]
    assert main(arguments) == 2  # one slide is blank
    out.rename(one)  # files hold the name of their folder

    victim = cluster.add_worker("--no-nanny")
    cluster.add_worker()

    def kill_in_the_middle() -> None:
        wait_until(lambda: list(out.glob("h5_files/*.h5")), "no slide was finished")
        kill(victim)

    killer = threading.Thread(target=kill_in_the_middle)
    killer.start()
    capsys.readouterr()
    assert main([*arguments, "--scheduler", cluster.address]) == 2
    killer.join()
    printed = capsys.readouterr().out
    assert "WARNING: random weights" in printed
    assert "blank: FAILED (no-tissue)" in printed
    assert {path.stem for path in (one / "h5_files").glob("*.h5")} == set(SLIDES)
    for place in ("h5_files", "overlays"):
        files = {path.name: path.read_bytes() for path in (one / place).iterdir()}
        assert {path.name: path.read_bytes() for path in (out / place).iterdir()} == files
    assert rows(out / "slides.csv") == [
        row | {"file": row["file"]} for row in rows(one / "slides.csv")
    ]
    assert rows(out / "failures.csv") == rows(one / "failures.csv")
    assert not list(out.rglob("*.lock")), "a lock was left"

    capsys.readouterr()
    assert main([*arguments, "--scheduler", cluster.address]) == 2
    assert "8 slides: 0 done, 7 made earlier, 1 failed" in capsys.readouterr().out
