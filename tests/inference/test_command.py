"""The predict command: what it prints and writes, exports, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys

import pandas as pd
import pytest
from builders.runs import TINY, train_run

import gimp_fast
from gimp_fast import predict
from gimp_fast.data.cohort import PARTS, open_cohort
from gimp_fast.inference import options
from gimp_fast.options import read_options


@pytest.fixture(scope="module")
def folder(cohort_folder, tmp_path_factory):
    """A cohort and a run on it; not to be changed."""
    folder = tmp_path_factory.mktemp("predict")
    (folder / "cohort").symlink_to(cohort_folder)
    train_run(folder / "run", cohort_folder, *TINY)
    return folder


def run(*argv: object) -> int:
    return predict.main([*(str(arg) for arg in argv), "--bootstrap", "20"])


def test_choices_and_defaults_of_the_command_are_those_of_the_code():
    assert options.PARTS == PARTS
    args = predict.build_parser().parse_args(["--run", "x"])
    assert read_options(args, options.PredictOptions) == options.PredictOptions()


def test_from_a_run_to_predictions(folder, tmp_path, capsys):
    out = tmp_path / "predictions.csv"
    assert run("--run", folder / "run", "--data", folder / "cohort", "--out", out) == 0
    said = capsys.readouterr().out
    assert "SYNTHETIC: trained on generated patients" in said
    assert "40 patients of the SYNTHETIC cohort 'synthetic'" in said
    metrics = json.loads((folder / "run" / "metrics.json").read_text())["test"]["accuracy"]
    assert "CAUTION: the model was trained or chosen on 32 of these patients" in said
    accuracy = f"accuracy {metrics['value']:.3f} ({metrics['k']}/8, 95 % CI"
    assert f"labels known, without them: {accuracy}" in said
    assert "not checked" not in said
    assert "training-patient  32/40" in said
    assert len(pd.read_csv(out)) == 40
    summary = json.loads((tmp_path / "predictions.warnings.json").read_text(encoding="utf-8"))
    assert summary["models"] == [str(folder / "run")]
    assert summary["synthetic"] is True
    assert summary["metrics"]["new"]["n"] == 8


def test_exported_and_in_an_ensemble(folder, tmp_path, capsys):
    model, data = tmp_path / "model", ["--data", folder / "cohort", "--part", "test"]
    argv = ["--run", folder / "run", "--export", model, *data, "--out", tmp_path / "a.csv"]
    assert run(*argv) == 0
    assert f"model exported to {model}" in capsys.readouterr().out
    assert run(*argv) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run(*argv, "--overwrite") == 0
    assert run("--run", model, *data, "--out", tmp_path / "b.csv") == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    both = ["--run", model, "--run", folder / "run", *data, "--out", tmp_path / "c.csv"]
    assert run(*both) == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "c.csv").read_bytes()
    assert set(pd.read_csv(tmp_path / "c.csv")["warnings"].dropna()) == {"small-bag"}


def test_a_patient_like_those_of_training_has_no_warnings(folder, tmp_path, capsys):
    cohort = open_cohort(folder / "cohort")
    case = next(c for c in cohort.split("split_0")["test"] if cohort.bag(c).num_patches >= 16)
    argv = ["--run", folder / "run", "--data", folder / "cohort", "--out", tmp_path / "one.csv"]
    assert run(*argv, "--cases", case) == 0
    assert pd.read_csv(tmp_path / "one.csv")["warnings"].isna().all()
    assert "no warnings" in capsys.readouterr().out


def test_some_patients_by_id_and_file(folder, tmp_path):
    cohort = gimp_fast.load(folder / "run").facts["cohort"]
    assert cohort["split"] == "split_0"
    ids = tmp_path / "ids.csv"
    ids.write_text("PATIENT;age\nSYNT-00-0003;60\nSYNT-00-0001;50\n", encoding="utf-8")
    out, argv = tmp_path / "some.csv", ["--run", folder / "run", "--data", folder / "cohort"]
    assert run(*argv, "--out", out, "--cases", "SYNT-00-0002", ids) == 0
    expected = ["SYNT-00-0002", "SYNT-00-0003", "SYNT-00-0001"]
    assert list(pd.read_csv(out)["case_id"]) == expected


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "give --data and --out to predict, --export to export, or --push to publish"),
        (["--data", "COHORT"], "belong together"),
        (["--out", "x.csv"], "give --data and --out"),
        (["--data", "nowhere", "--out", "x.csv"], "nowhere: not a cohort folder"),
        (["--data", "RUN", "--out", "x.csv"], "not a cohort folder"),
        (["--data", "COHORT", "--out", "x.csv", "--run", "nowhere"], "nowhere: found no such"),
        (["--data", "COHORT", "--out", "x.csv", "--cases", "A", "B"], "no patient A, B (2 of 2"),
        (["--data", "COHORT", "--out", "x.csv", "--split", "other"], "no split 'other'"),
        (["--data", "COHORT", "--out", "x.csv", "--device", "abacus"], "device 'abacus'"),
        (["--data", "COHORT", "--out", "x.csv", "--batch-size", "0"], "batch_size: found 0"),
        (["--data", "COHORT", "--out", "x.csv", "--backend", "magic"], "magic"),
    ],
)
def test_bad_requests_exit_with_two_and_one_message(
    folder, argv, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    places = {"RUN": folder / "run", "COHORT": folder / "cohort"}
    assert run("--run", folder / "run", *(places.get(arg, arg) for arg in argv)) == 2
    error = capsys.readouterr().err
    assert error.count("error: ") == 1
    assert message in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_imported_that_predicting_does_not_need(folder, tmp_path):
    unneeded = ("sklearn", "scipy", "matplotlib", "sympy", "triton", "torch._dynamo")
    argv = ["--run", folder / "run", "--data", folder / "cohort", "--out", tmp_path / "p.csv"]
    argv = [*map(str, argv)]
    code = f"""
import sys
from gimp_fast.predict import main
assert main({argv!r}) == 0
print("loaded:", [name for name in {unneeded!r} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1:] == ["loaded: []"], done.stderr


def test_a_run_is_required(capsys):
    with pytest.raises(SystemExit) as stopped:
        run("--data", "cohort")
    assert stopped.value.code == 2
    assert "--run" in capsys.readouterr().err
