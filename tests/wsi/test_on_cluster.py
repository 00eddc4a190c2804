"""Extraction on a cluster: the same files as in one process, though a worker dies."""

from __future__ import annotations

import csv
import threading
from pathlib import Path

import pytest
from builders.clusters import contents, kill, wait_until
from builders.slides import write_slide

from gimp_fast.extract import main

SMALL = ["--min-part", "0.01"]  # square millimetres
SLIDES = [f"slide-{number}" for number in range(7)]

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path) -> Path:
    """Seven slides that are fine, each with other tissue, and one without any."""
    pytest.importorskip("openslide")
    pytest.importorskip("tifffile")
    slides = tmp_path / "slides"
    for number, name in enumerate(SLIDES):
        tissue = [(256, 256, 768, 512 + 8 * number)]  # two patches
        write_slide(slides, f"{name}.tif", size=(1000, 900), tissue=tissue)
    write_slide(slides, "blank.tif", size=(1000, 900), tissue=[])
    return slides


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [row | {"seconds": ""} for row in csv.DictReader(file)]


def test_a_worker_that_dies_changes_no_file(folder, tmp_path, cluster, capsys):
    out, one = tmp_path / "out", tmp_path / "one"
    arguments = ["--slides", str(folder), "--out", str(out), "--random-weights", "--workers", "1"]
    arguments += SMALL
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
        assert contents(out / place) == contents(one / place)
    found = {"one": rows(one / "slides.csv"), "many": rows(out / "slides.csv")}
    # The victim may have finished a slide, but not have said so.
    untold = [n for n, row in enumerate(found["many"]) if row["status"] == "present"]
    assert len(untold) <= 1
    for number in untold:
        found["one"][number] = found["many"][number]
    assert found["many"] == found["one"]
    assert rows(out / "failures.csv") == rows(one / "failures.csv")
    assert not list(out.rglob("*.lock")), "a lock was left"


def test_paths_may_be_relative(folder, tmp_path, cluster, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # of which workers know nothing
    cluster.add_worker()
    arguments = ["--slides", "slides", "--out", "out", "--patches-only", *SMALL]
    for _ in range(2):
        assert main([*arguments, "--scheduler", "cluster/scheduler.json"]) == 2
    assert len(list((tmp_path / "out" / "patches").iterdir())) == len(SLIDES)
    printed = capsys.readouterr().out
    assert "8 slides: 7 done, 0 made earlier, 1 failed" in printed
    assert "8 slides: 0 done, 7 made earlier, 1 failed" in printed
