"""The table of survival, from cohorts to pages."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from gimp_fast.data import open_cohort
from gimp_fast.evaluation.kaplan_meier import Outcomes
from gimp_fast.evaluation.survival import harrell_c
from gimp_fast.experiments import main

ROWS = ["ridge_cox", "snn", "gimp_fallback", "gimp_covariates"]


def command(folders, out, tiny, *more):
    data = [str(folder) for folder in folders]
    return ["survival", "--data", *data, "--out", str(out), *tiny, "--only", *ROWS, *more]


@pytest.fixture(scope="module")
def made(cohort_folders, tiny, tmp_path_factory):
    """Both cohorts, two seeds, two trials of each row."""
    pytest.importorskip("optuna")
    out = tmp_path_factory.mktemp("out")
    more = ["--seeds", "2", "--tune", "2", "--splits", "fold_0", "fold_1"]
    assert main(command(cohort_folders, out, tiny, *more)) == 0
    return out


def results(out: Path) -> dict:
    return json.loads((out / "survival" / "results.json").read_text(encoding="utf-8"))


def row_of(out: Path, key: str) -> dict:
    return next(row for row in results(out)["rows"] if row["key"] == key)


def test_the_table_has_all_its_files(made):
    folder = made / "survival"
    for name in ("table.md", "table.csv", "table.tex", "results.json", "report.html"):
        assert (folder / name).stat().st_size > 200
    drawn = {path.stem for path in (folder / "figures").glob("*.png")}
    assert {"c_index_mean_fold", "c_index_first_fold", "c_index_second_fold"} <= drawn
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "Synthetic patients." in page
    text = (folder / "table.md").read_text(encoding="utf-8")
    assert "## C-index, mean of cohorts" in text
    assert "| Method | first | second |" in text
    assert "Mean of 2 cohorts" in page
    assert "## C-index of what a model is shown alone" in text
    alone = row_of(made, "gimp_covariates")["groups"][heading(made, "first")]["by_modality"]
    assert set(alone) == {"both", "rna", "slide", "without_covariates", "covariates"}
    assert len(alone["rna"]["values"]) == 4  # two folds, two seeds
    assert row_of(made, "snn")["groups"][heading(made, "first")]["by_modality"] == {}


def test_a_c_index_is_the_mean_of_those_of_the_predictions(made):
    found = []
    for folder in (made / "runs").glob("snn-*"):
        if json.loads((folder / "run.json").read_text())["cohort"] != fingerprint(made, "first"):
            continue
        record = json.loads((folder / "run.json").read_text())
        if record["digest"] not in {run["digest"] for run in results(made)["runs"]}:
            continue  # a trial that was not chosen
        with (folder / "predictions.csv").open(newline="") as stream:
            lines = [line for line in csv.DictReader(stream) if line["split"] == "test"]
        numbers = {name: np.array([float(line[name]) for line in lines])
                   for name in ("time", "event", "risk")}  # fmt: skip
        outcomes = Outcomes(numbers["time"], numbers["event"] > 0)
        found.append(harrell_c(outcomes, numbers["risk"]))
    test = row_of(made, "snn")["groups"][heading(made, "first")]["test"]
    assert len(found) == len(test["c_of_runs"]["values"]) == 4
    assert test["c_index"]["value"] == pytest.approx(np.mean(found), abs=1e-6)
    assert test["c_index"]["low"] <= test["c_index"]["value"] <= test["c_index"]["high"]


def fingerprint(out: Path, name: str) -> str:
    return next(c["fingerprint"] for c in results(out)["cohorts"] if c["name"] == name)


def heading(out: Path, cohort: str) -> str:
    found = row_of(out, "snn")["groups"]
    return next(name for name in found if name.startswith(cohort))


def test_means_over_cohorts_and_differences(made):
    row = row_of(made, "ridge_cox_both")
    (overall,) = row["overall"].values()
    values = [group["test"]["c_index"]["value"] for group in row["groups"].values()]
    assert overall["c_index"]["value"] == pytest.approx(np.mean(values))
    gimp = row_of(made, "gimp")
    gaps = [
        a["test"]["c_index"]["value"] - b["test"]["c_index"]["value"]
        for a, b in zip(row["groups"].values(), gimp["groups"].values(), strict=True)
    ]
    assert overall["versus"]["value"] == pytest.approx(np.mean(gaps))
    assert gimp["groups"][heading(made, "first")]["versus"] is None


def test_rows_of_covariates_are_there_where_the_cohort_has_some(made):
    assert list(row_of(made, "gimp_covariates")["groups"]) == [heading(made, "first")]
    assert row_of(made, "gimp_covariates")["overall"] == {}
    fallback = row_of(made, "gimp_fallback")["groups"][heading(made, "first")]
    assert 0 <= fallback["weight"]["mean"] <= 1
    assert fallback["versus"]["p_holm"] >= fallback["versus"]["p"]


def test_every_row_has_its_trials_and_the_best_is_chosen(made):
    for tuning in results(made)["tuning"].values():
        assert tuning["trials_of_each"] == 2
        for of_row in tuning["rows"].values():
            for split in of_row.values():
                best = max(split["trials"], key=lambda trial: trial["validation_c_index"])
                assert split["chosen"] == best["overrides"]


def test_all_runs_share_target_and_horizons(made, cohort_folders):
    cohort = open_cohort(cohort_folders[0])
    truth = cohort.truth(list(cohort.targets["os"].values), "os")
    quartiles = np.quantile(truth[truth[:, 1] > 0, 0], [0.25, 0.5, 0.75])
    metrics = [
        json.loads((made / "runs" / run["folder"] / "metrics.json").read_text())
        for run in results(made)["runs"]
    ]
    of_first = [each["target"] for each in metrics if each["cohort"]["name"] == "first"]
    assert {target["name"] for target in of_first} == {"os"}
    for target in of_first:
        np.testing.assert_allclose(target["horizons"], quartiles, rtol=1e-3)


def test_every_trial_ends(made):
    for cohort, record in results(made)["tuning"].items():
        for row, of_splits in record["rows"].items():
            for split, found in of_splits.items():
                values = [trial["validation_c_index"] for trial in found["trials"]]
                assert None not in values, (cohort, row, split)


def test_nothing_is_trained_twice(made, cohort_folders, tiny, monkeypatch):
    def refuse(*arguments, **more):
        raise AssertionError("a run was started again")

    monkeypatch.setattr("gimp_fast.experiments.execute.run_all", refuse)
    before = results(made)["rows"]
    more = ["--seeds", "2", "--tune", "2", "--splits", "fold_0", "fold_1"]
    assert main(command(cohort_folders, made, tiny, *more)) == 0
    assert results(made)["rows"] == before


def test_one_cohort_has_no_means_and_its_rows_can_be_listed(cohort_folders, tiny, tmp_path, capsys):
    one = ["survival", "--data", str(cohort_folders[0]), "--out", str(tmp_path), *tiny]
    assert main([*one, "--only", "ridge_cox", "--splits", "fold_0"]) == 0
    found = results(tmp_path)
    assert all(row["overall"] == {} for row in found["rows"])
    assert not list((tmp_path / "survival" / "figures").glob("c_index_mean*"))
    capsys.readouterr()
    assert main([*one, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "gimp_covariates" in text
    assert "mixes the predictions of gimp and ridge_cox_both" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["survival", "table1"], "a command of its own"),
        (
            ["survival", "--target", "oss"],
            "found .oss.; targets of survival in .*did you mean",
        ),
        (["survival", "--target", "burden"], "found 'burden'; targets of survival in .*: os"),
        (["survival", "--covariates", "aeg"], "found 'aeg'; .* has age, stage; did you mean 'age'"),
        (["survival", "--set", "target=os"], "the option --target decides it"),
        (["survival", "--set", "covariates=[age]"], "the option --covariates decides it"),
        (["table1", "--target", "os"], "are for the table 'survival'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_one_clear_error(arguments, message, cohort_folders, tmp_path, capsys):
    import re

    data = ["--data", str(cohort_folders[0]), "--out", str(tmp_path / "out"), "--preset", "small"]
    assert main([*arguments, *data]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_two_cohorts_of_one_name_are_refused(cohort_folders, tmp_path, capsys):
    twice = [str(cohort_folders[0])] * 2
    assert main(["survival", "--data", *twice, "--out", str(tmp_path / "out")]) == 2
    assert "several cohorts called first" in capsys.readouterr().err


def test_a_cohort_without_survival_is_refused(cohort_folder, tmp_path, capsys):
    assert main(["survival", "--data", str(cohort_folder), "--out", str(tmp_path / "out")]) == 2
    assert "has these targets of survival: none" in capsys.readouterr().err
