"""The train command: what it says, where its configuration comes from, exit codes."""

from __future__ import annotations

import json

import pytest
import yaml

from gimp_fast.data.synthetic.patients import SyntheticConfig, prepare_synthetic
from gimp_fast.train import main

QUICK = [
    *("--set", "genes.epochs=1", "--set", "pretrain.epochs=1", "--set", "finetune.epochs=1"),
    *("--set", "model.dim=8", "--set", "model.heads=2", "--set", "model.num_landmarks=8"),
    *("--set", "pretrain.window=16", "--set", "bootstrap=20", "--set", "threads=1"),
]


@pytest.fixture(scope="module")
def cohort_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "out"
    prepare_synthetic(folder, SyntheticConfig(num_patients=30, feature_dim=8, num_genes=60))
    return folder / "cohort"


def test_from_a_cohort_to_a_report_and_again(cohort_folder, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["--data", str(cohort_folder), "--out", str(run), "--preset", "small", *QUICK]) == 0
    said = capsys.readouterr().out
    assert "SYNTHETIC" not in said
    assert "test: accuracy" in said
    assert (run / "report.html").stat().st_size > 10_000
    assert yaml.safe_load((run / "config.yaml").read_text())["data"] == str(cohort_folder)
    before = (run / "metrics.json").read_bytes()

    assert main(["--data", str(cohort_folder), "--out", str(run), "--preset", "small"]) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert main(["--out", str(run), "--resume"]) == 0
    assert "SYNTHETIC" not in capsys.readouterr().out
    assert (run / "metrics.json").read_bytes() == before

    assert main(["--out", str(run), "--resume", "--seed", "5"]) == 0
    assert "  seed  saved 0, asked 5\n" in capsys.readouterr().err
    assert (run / "metrics.json").read_bytes() == before


@pytest.mark.slow
def test_without_data_the_first_line_says_synthetic(tmp_path, capsys):
    run = tmp_path / "run"
    leftover = run / "synthetic" / "raw" / "half-written.h5"
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    assert main(["--out", str(run), *QUICK]) == 0
    assert not leftover.exists()
    assert "SYNTHETIC patients" in capsys.readouterr().out.splitlines()[0]
    assert json.loads((run / "metrics.json").read_text())["cohort"]["synthetic"] is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "nowhere"),
        (["--preset", "huge"], "'huge'"),
        (["--config", "absent.yaml"], "absent.yaml"),
        (["--set", "finetune.lr=fast"], "finetune.lr: found 'fast'"),
    ],
)
def test_bad_requests_exit_with_two_and_one_message(
    arguments, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--out", "run"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_resume_needs_a_run_folder(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--resume"])
    assert stopped.value.code == 2
    assert "--out" in capsys.readouterr().err
