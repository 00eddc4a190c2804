"""The heatmap command: where maps go, what it says, exit codes, the report that links them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gimp_fast.data import open_cohort
from gimp_fast.heatmap import main
from gimp_fast.training.claim import saved_config


@pytest.fixture
def run(gimp_run, tmp_path) -> Path:
    return shutil.copytree(gimp_run, tmp_path / "run")


def test_maps_lie_in_the_run_and_its_report_links_them(run, capsys):
    assert main(["--run", str(run), "--max-patients", "2", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("SYNTHETIC")
    assert "report: " in said
    summary = json.loads((run / "heatmaps" / "heatmaps.json").read_text())
    assert len(summary["patients"]) == 2
    html = (run / "report.html").read_text(encoding="utf-8")
    for patient in summary["patients"]:
        assert f"heatmaps/{patient['genes']['folder']}/genes.png" in html
    assert main(["--run", str(run), "--max-patients", "2", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.count("finished before") == 2


def test_a_check_is_written_said_and_shown_in_the_report(run, capsys):
    arguments = ["--run", str(run), "--max-patients", "3", "--device", "cpu"]
    assert main([*arguments, "--check", "--check-draws", "2"]) == 0
    said = capsys.readouterr().out
    for kind in ("patches", "genes"):
        assert f"\n{kind}: 3 patients are too few to say whether attention ranks {kind}" in said
        assert (run / "heatmaps" / f"faithfulness-{kind}.svg").is_file()
    summary = json.loads((run / "heatmaps" / "faithfulness.json").read_text())
    assert summary["explained"] == "probability of the predicted class"
    assert summary["settings"]["check_draws"] == 2
    table = pd.read_csv(run / "heatmaps" / "faithfulness.csv")
    assert len(table) == 3 * 2 * 2 * 2  # patients, kinds, curves, orders
    chance = table[["random_low", "random_area", "random_high"]].to_numpy()
    assert (np.diff(chance) >= 0).all()
    gain = np.where(table["curve"] == "deletion", -1, 1) * (table["area"] - table["random_area"])
    np.testing.assert_allclose(table["more_faithful_than_random"], gain, atol=2e-6)
    page = (run / "heatmaps" / "faithfulness.html").read_text(encoding="utf-8")
    assert "Synthetic patients" in page
    assert page.count("<svg ") == 2
    html = (run / "report.html").read_text(encoding="utf-8")
    assert "3 patients are too few" in html
    assert 'href="heatmaps/faithfulness.html"' in html
    # Maps of other weights: what was checked is not what the report shows.
    assert main([*arguments, "--attribution", "gradient"]) == 0
    assert "faithfulness.html" not in (run / "report.html").read_text(encoding="utf-8")


def test_maps_elsewhere_leave_the_report(run, tmp_path, capsys):
    out = tmp_path / "maps"
    arguments = ["--run", str(run), "--out", str(out), "--max-patients", "1", "--top", "0"]
    assert main([*arguments, "--geojson", "none", "--attribution", "gradient"]) == 0
    assert not (run / "report.html").exists()
    assert "report: " not in capsys.readouterr().out
    assert not list(out.rglob("*.geojson"))


def test_a_patient_that_cannot_be_read_is_listed_and_ends_with_two(run, tmp_path, capsys):
    cohort = open_cohort(saved_config(run).data)
    cases = [c for c in cohort.case_ids if cohort.bag(c).slides[0].path.suffix == ".h5"][:2]
    file = cohort.bag(cases[0]).slides[0].path
    content = file.read_bytes()
    try:
        file.write_bytes(content[: len(content) // 2])
        out = tmp_path / "maps"
        assert main(["--run", str(run), "--out", str(out), "--cases", *cases]) == 2
    finally:
        file.write_bytes(content)
    error = capsys.readouterr().err
    assert "1 patient failed" in error
    assert cases[0] in error
    assert str(file) in error
    summary = json.loads((out / "heatmaps.json").read_text())
    assert [p["case_id"] for p in summary["patients"]] == [cases[1]]
    assert [f["case_id"] for f in summary["failures"]] == [cases[0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cases", "nobody"], "found no patient nobody"),
        (["--data", "nowhere"], "nowhere"),
        (["--slide-images", "nowhere"], "nowhere: found no such folder"),
        (["--part", "test", "--split", "absent"], "no split 'absent'"),
    ],
)
def test_bad_requests_end_with_two_and_one_message(run, arguments, message, capsys):
    assert main(["--run", str(run), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "arguments",
    [["--top", "-1"], ["--max-patients", "0"], ["--part", "x"], ["--check-draws", "0"]],
)
def test_impossible_options_are_refused_by_the_parser(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--run", "run", *arguments])
    assert stop.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_told(tmp_path, capsys):
    assert main(["--run", str(tmp_path), "--out", str(tmp_path / "maps")]) == 2
    assert "expected a run" in capsys.readouterr().err
