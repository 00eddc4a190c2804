"""``gimp-fast validate``: its files, and what it refuses."""

from __future__ import annotations

import csv
import json
import re

import pandas as pd
import pytest

from gimp_fast import validate
from gimp_fast.external import ValidateOptions, write_validation
from gimp_fast.options import read_options

QUICK = ["--resamples", "40", "--fewest-patients", "8", "--fewest-events", "2"]


def run(*argv: object) -> int:
    return validate.main([*map(str, argv), *QUICK])


def test_defaults_of_the_command_are_those_of_the_code():
    argv = ["--run", "x", "--data", "y", "--out", "z"]
    args = validate.build_parser().parse_args(argv)
    assert read_options(args, ValidateOptions) == ValidateOptions()


def test_from_a_run_to_a_page(trained, other_folder, tmp_path, capsys):
    asked = ("--run", trained(), "--data", other_folder, "--out", tmp_path / "out")
    assert run(*asked) == 2
    assert "found 32 of 80 patients on whom a model was trained" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run(*asked, "--exclude-known") == 0
    said = capsys.readouterr().out
    assert "48 new patients of the SYNTHETIC cohort 'synthetic'" in said
    assert "left out: 32 patients, a model was trained or chosen on them" in said
    assert "The bootstrap draws 48 patients: the cohort knows no hospital." in said
    facts = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert facts["patients"] == 48
    assert facts["left_out"]["known"]["count"] == 32
    assert facts["command"].startswith("gimp-fast validate --run ")
    assert facts["environment"]["gimp_fast"]
    assert run(*asked, "--exclude-known") == 0  # an earlier validation is replaced
    (tmp_path / "out" / "mine.txt").touch()
    assert run(*asked, "--exclude-known") == 2
    assert "found mine.txt; expected a new folder" in capsys.readouterr().err


@pytest.mark.parametrize("seeds", [(0,), (0, 1)], ids=["one", "several"])
@pytest.mark.parametrize("kind", ["class", "survival", "regression"])
def test_the_files(validated, kind, seeds, tmp_path):
    found = validated(kind, seeds)
    page = write_validation(found, tmp_path).read_text(encoding="utf-8")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"figures", "predictions.csv", "report.html", "results.json", "scores.csv"}
    # Nothing is loaded from elsewhere, and nothing runs.
    assert not re.search(r'(?:src|href)="(?!#)', page)
    assert "<script" not in page
    assert "Synthetic patients." in page
    for score in found.scores.values():
        assert f"{score.new.value:.3f} (".replace("-", "−") in page
    figures = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert figures == {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    assert {"scores", "groups"} < figures
    assert page.count("<svg ") == len(figures)
    assert pd.read_csv(tmp_path / "predictions.csv")["case_id"].tolist() == (
        found.table["case_id"].tolist()
    )


def test_a_line_for_each_score_and_group(validated, tmp_path):
    found = validated("survival", (0, 1))
    write_validation(found, tmp_path)
    with (tmp_path / "scores.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3 * len(found.scores) + len(found.groups)
    first = next(row for row in rows if row["group"] == "all new patients, single models")
    assert float(first["difference"]) == pytest.approx(found.scores["c_index"].difference.value)
    without = [row for row in rows if row["reason"]]
    assert len(without) == sum(group.score is None for group in found.groups)
    assert {row["value"] for row in without} == {""}


def test_results_are_plain_json(validated, tmp_path):
    write_validation(validated("survival"), tmp_path)
    text = (tmp_path / "results.json").read_text(encoding="utf-8")
    facts = json.loads(text, parse_constant=lambda word: pytest.fail(f"found {word}"))
    assert facts["main"] == "c_index"
    assert facts["scores"]["c_index"]["new"].keys() == {"value", "low", "high"}
    assert len(facts["curves"][0]["curve"]["model"]) == len(facts["curves"][0]["curve"]["gain"])
    assert facts["cohort"]["fingerprint"] == validated("survival").cohort["fingerprint"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--resamples", "0"], "resamples: found 0"),
        (["--data", "nowhere"], "nowhere"),
        (["--run", "nowhere"], "nowhere: found no such folder"),
        (["--cases", "SYNT-9"], "found no patient SYNT-9"),
        (["--part", "test", "--split", "nosplit"], "no split 'nosplit'"),
    ],
    ids=["resamples", "cohort", "run", "case", "split"],
)
def test_bad_requests_exit_with_two_and_one_message(
    argv, message, trained, other_folder, tmp_path, capsys
):
    asked = ["--run", trained(), "--data", other_folder, "--out", tmp_path / "out"]
    assert validate.main([*map(str, asked), *argv]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
