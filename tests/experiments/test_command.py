"""The command from a cohort to pages: what is written, kept, told, and survived."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import gimp_fast
from gimp_fast.data import open_cohort
from gimp_fast.data.slides import prepared
from gimp_fast.data.slides.file_state import file_state
from gimp_fast.experiments import execute, main
from gimp_fast.experiments.catalog import experiment
from gimp_fast.experiments.machines import Machines
from gimp_fast.experiments.plan import Shared, make_plan
from gimp_fast.experiments.worker import Task
from gimp_fast.files.locks import lock_file

QUICK_ROWS = ["mean_pool", "logistic_regression_slide", "gimp_scratch", "gimp"]


@pytest.fixture(scope="module")
def made(cohort_folder, tiny, tmp_path_factory):
    """Two folds, one seed, four rows, trained once for all tests that only look."""
    out = tmp_path_factory.mktemp("out")
    arguments = ["table1", "--data", str(cohort_folder), "--out", str(out), *tiny]
    assert main([*arguments, "--only", *QUICK_ROWS]) == 0
    return out


def results(out: Path, table: str = "table1") -> dict:
    return json.loads((out / table / "results.json").read_text(encoding="utf-8"))


def test_a_table_has_all_its_files(made):
    folder = made / "table1"
    for name in ("table.md", "table.csv", "table.tex", "results.json", "report.html"):
        assert (folder / name).stat().st_size > 200
    drawn = {path.name for path in (folder / "figures").iterdir()}
    assert {
        "accuracy_fold.png",
        "accuracy_fold.svg",
        "roc_fold.png",
        "reliability_fold.svg",
    } <= drawn
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org/", "")
    assert "Synthetic patients." in page
    assert "made up &amp; &lt;small&gt;" in page
    assert "Synthetic patients" in (folder / "table.md").read_text(encoding="utf-8")
    assert "Synthetic patients" in (folder / "table.tex").read_text(encoding="utf-8")


def test_numbers_are_those_of_the_predictions(made):
    found = results(made)
    assert found["cohort"]["synthetic"] is True
    assert found["num_runs"] == 8
    row = next(row for row in found["rows"] if row["key"] == "gimp")
    test = row["groups"]["fold"]["test"]
    hits = total = 0
    for folder in (made / "runs").glob("gimp-*"):
        with (folder / "predictions.csv").open(newline="") as stream:
            lines = [line for line in csv.DictReader(stream) if line["split"] == "test"]
        hits += sum(line["label"] == line["prediction"] for line in lines)
        total += len(lines)
    assert (test["accuracy"]["k"], test["accuracy"]["n"]) == (hits, total)
    assert test["accuracy"]["low"] <= test["accuracy"]["value"] <= test["accuracy"]["high"]
    assert row["groups"]["fold"]["versus"] is None
    other = next(row for row in found["rows"] if row["key"] == "mean_pool")
    versus = other["groups"]["fold"]["versus"]["accuracy"]
    assert versus["mcnemar"]["p"] <= 1  # the folds have no test patient in common
    difference = other["groups"]["fold"]["test"]["accuracy"]["value"] - test["accuracy"]["value"]
    assert versus["value"] == pytest.approx(difference)


def test_run_folders_keep_results_and_no_weights(made):
    for folder in (made / "runs").glob("*-fold_*"):
        names = {path.name for path in folder.iterdir()}
        assert {"predictions.csv", "metrics.json", "config.yaml", "environment.json"} <= names
        assert not names & {"checkpoints", "tensorboard", "error.txt"}


def test_nothing_is_trained_twice(made, cohort_folder, tiny, capsys, monkeypatch):
    def refuse(*arguments, **more):
        raise AssertionError("a run was started again")

    monkeypatch.setattr("gimp_fast.experiments.execute.run_all", refuse)
    before = results(made)
    arguments = ["--data", str(cohort_folder), "--out", str(made), *tiny]
    assert main(["table1", *arguments, "--only", *QUICK_ROWS]) == 0
    assert "8 of 8 runs are done already" in capsys.readouterr().out
    assert results(made)["rows"] == before["rows"]
    # Table 2 has two rows that Table 1 has trained.
    assert main(["table2", *arguments, "--only", "gimp", "gimp_scratch"]) == 0
    assert results(made, "table2")["num_runs"] == 4
    probes = {row["key"]: row["probes"] for row in results(made, "table2")["rows"]}
    assert probes["gimp_scratch"] == {}  # nothing was pre-trained
    found = probes["gimp"]["fold"]
    assert found["runs"] == 2
    for fitted_on in ("train", "val"):
        assert {share["n"] for share in found[fitted_on].values()} == {16}
    table = (made / "table2" / "table.md").read_text(encoding="utf-8")
    assert "What pre-training taught the slide encoder" in table


def test_fig2_and_delta_have_figures_of_their_own(made, cohort_folder, tiny):
    arguments = ["--data", str(cohort_folder), "--out", str(made), *tiny, "--splits", "fold_0"]
    rows = ["gimp", "gimp_without_genes", "gimp_delta_0.2", "gimp_delta_0.8"]
    assert main(["fig2", "delta", *arguments, "--only", *rows, "--deltas", "0.2", "0.8"]) == 0
    drawn = {path.name for path in made.glob("*/figures/*.png")}
    assert {"tsne_fold.png", "delta.png"} <= drawn
    separation = results(made, "fig2")["rows"][1]["separation"]["fold"]
    assert -1 <= separation["train"]["mean"] <= 1
    assert separation["neighbours"]["n"] == 8
    # CLS_img alone is half of CLS_pat.
    folder = next((made / "runs").glob("gimp_without_genes-*"))
    with np.load(folder / "embeddings.npz") as archive:
        assert archive["pretrain"].shape[1] == 16


def test_a_dry_run_writes_nothing(cohort_folder, tiny, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["table1", "--data", str(cohort_folder), "--out", str(out), *tiny]
    assert (
        main(
            [*arguments, "--dry-run", "--seeds", "3", "--only", "abmil", "logistic_regression_rna"]
        )
        == 0
    )
    said = capsys.readouterr().out
    assert "abmil" in said
    assert "2 splits (fold_0, fold_1), 3 seeds: 8 runs, 8 to train" in said
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--splits", "random_*"], "--splits: found 'random_*'; the cohort has fold_0, fold_1"),
        (["--only", "abmill"], "--only: found abmill"),
        (["--set", "seed=4"], "the table decides the seed"),
        (["--set", "finetune.lr=fast"], "finetune.lr"),
        (["--preset", "huge"], "'huge'"),
    ],
)
def test_bad_requests_exit_with_two_and_one_message(
    arguments, message, cohort_folder, tmp_path, capsys
):
    out = tmp_path / "out"
    assert main(["table1", "--data", str(cohort_folder), "--out", str(out), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not out.exists()


def test_no_cohort_no_rows_and_a_busy_folder(
    cohort_folder, cohort_without_rna, tiny, tmp_path, capsys
):
    out = str(tmp_path / "out")
    assert main(["table1", "--data", str(tmp_path), "--out", out]) == 2
    assert "not a cohort folder" in capsys.readouterr().err
    arguments = ["--data", str(cohort_without_rna), "--out", out, *tiny]
    assert main(["table1", *arguments, "--only", "snn"]) == 2
    assert "needs RNA, of which the cohort has none" in capsys.readouterr().err
    (Path(out) / "runs").mkdir(parents=True)
    with lock_file(Path(out) / "runs" / ".lock"):
        assert main(["table1", *arguments, "--only", "logistic_regression_slide"]) == 2
    assert "another command is at work there" in capsys.readouterr().err
    assert main(["table1", *arguments, "--only", "logistic_regression_slide", "snn", "gimp"]) == 0
    assert "left out" in (Path(out) / "table1" / "table.md").read_text(encoding="utf-8")


def test_a_run_that_fails_is_told_and_the_others_go_on(cohort_folder, tiny, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["table1", "--data", str(cohort_folder), "--out", str(out), *tiny]
    arguments += ["--only", "mean_pool", "logistic_regression_slide", "--set", "finetune.lr=1e30"]
    assert main([*arguments, "--set", "finetune.epochs=3"]) == 1
    captured = capsys.readouterr()
    assert "mean_pool fold_0 seed 0: FAILED" in captured.out
    assert "2 runs failed" in captured.err
    found = results(out)
    assert set(found["failed"]) == {"mean_pool fold_0 seed 0", "mean_pool fold_1 seed 0"}
    rows = {row["key"]: row["groups"]["fold"] for row in found["rows"]}
    assert (rows["logistic_regression_slide"]["runs"], rows["mean_pool"]["runs"]) == (2, 0)
    assert "0 of 2 runs" in (out / "table1" / "table.md").read_text(encoding="utf-8")
    assert "Runs that failed" in (out / "table1" / "report.html").read_text(encoding="utf-8")


# In place of the worker: memory runs out in one run, another ends with an exception, and a third
# before it has a folder. A module of its own, since other processes cannot import a test.
CRASHING = """
import os
import signal


def crash(task):
    if task.run.seed:
        raise SystemExit(1)
    task.folder.mkdir(parents=True)
    if task.run.split == "fold_0":
        os.kill(os.getpid(), signal.SIGKILL)
    (task.folder / "log.txt").write_text("epoch 1\\nRuntimeError: no luck\\n")
    raise SystemExit(1)
"""


def test_how_a_crash_is_told(cohort_folder, tmp_path, monkeypatch):
    (tmp_path / "crashing_worker.py").write_text(CRASHING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(execute, "WORK", "crashing_worker:crash")
    cohort = open_cohort(cohort_folder)
    plan = make_plan(
        [experiment("table1")], cohort, Shared("small"), rows=frozenset(["mean_pool"]),
        splits=["fold_0", "fold_1"], seeds=[0, 1], threads=1,
    )  # fmt: skip
    tasks = [Task(run, cohort_folder, tmp_path / run.name) for run in plan.runs]
    ended = []
    execute.run_all(tasks, Machines(2), lambda *outcome: ended.append(outcome))
    errors = {(task.run.split, task.run.seed): error for task, error, _ in ended}
    assert errors["fold_0", 0].startswith("ended by SIGKILL; memory may have run out")
    assert errors["fold_1", 0].startswith("RuntimeError: no luck; see ")
    assert errors["fold_0", 1] == "ended with exit code 1 before it began"


def test_runs_share_what_was_found_of_touched_slides(cohort_folder, tmp_path, monkeypatch):
    cohort = open_cohort(cohort_folder)
    bags = map(cohort.bag, filter(cohort.has_slides, cohort.case_ids))
    old = os.path.commonpath([slide.path for bag in bags for slide in bag.slides])
    shutil.copytree(old, tmp_path / "slides", copy_function=shutil.copyfile)  # with new times
    shutil.copytree(cohort_folder, tmp_path / "cohort")
    table = tmp_path / "cohort" / "slides.csv"
    table.write_text(table.read_text().replace(old, str(tmp_path / "slides")))
    monkeypatch.setattr(prepared, "_verified", {})
    cohort = open_cohort(tmp_path / "cohort")
    plan = make_plan(
        [experiment("table1")], cohort, Shared("small"), rows=frozenset(["mean_pool", "snn"]),
        splits=["fold_0"], seeds=[0], threads=1,
    )  # fmt: skip
    slides, rna = sorted(plan.runs, key=lambda run: run.settings.modalities, reverse=True)
    assert execute.verified_slides(cohort, [rna]) == {}
    paths = {
        slide.path
        for part in cohort.split("fold_0").values()
        for case in filter(cohort.has_slides, part)
        for slide in cohort.bag(case).slides
    }
    first, *others = sorted(paths)
    first.write_bytes(b"damaged")
    found = execute.verified_slides(cohort, [slides, rna])
    assert len(found) > len(paths) / 2
    assert found == {path: file_state(path) for path in others if path in found}
    assert first not in found


def test_a_run_whose_folder_cannot_be_made(cohort_folder, tmp_path):
    (tmp_path / "file").touch()
    plan = make_plan(
        [experiment("table1")], open_cohort(cohort_folder), Shared("small"),
        rows=frozenset(["mean_pool"]), splits=["fold_0"], seeds=[0], threads=1,
    )  # fmt: skip
    tasks = [Task(run, cohort_folder, tmp_path / "file" / run.name) for run in plan.runs]
    ended = []
    execute.run_all(tasks, Machines(), lambda *outcome: ended.append(outcome))
    # 2, for what the user can mend; a crash is 1.
    assert [error for _, error, _ in ended] == ["ended with exit code 2 before it began"]


def stopped_in_the_middle(arguments: list[str], out: Path, number: int) -> int:
    """Exit code of the command after a signal, sent when its last run has finished an epoch."""
    package = str(Path(gimp_fast.__file__).parents[1])  # the one that is tested
    # A suite that was started in the background ignores Ctrl-C, and would pass that on.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        command = subprocess.Popen(
            [sys.executable, "-m", "gimp_fast.experiments", *arguments],
            cwd=out.parent, env=os.environ | {"PYTHONPATH": package}, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, inherited)
    deadline = time.monotonic() + 600  # of a machine with other work; a quiet one needs 10 s
    while not list(out.glob("runs/abmil-*/metrics.jsonl")):
        assert time.monotonic() < deadline, "the last run never finished an epoch"
        time.sleep(0.02)
    command.send_signal(number)
    return command.wait(timeout=300)


def long_arguments(cohort_folder: Path, out: Path, tiny: list[str]) -> list[str]:
    arguments = ["table1", "--data", str(cohort_folder), "--out", str(out), *tiny]
    arguments += [
        "--only",
        "logistic_regression_slide",
        "abmil",
        "--jobs",
        "1",
        "--splits",
        "fold_0",
    ]
    return [*arguments, "--set", "finetune.epochs=60"]


def test_a_command_that_is_stopped_goes_on(cohort_folder, tiny, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = long_arguments(cohort_folder, out, tiny)
    assert stopped_in_the_middle(arguments, out, signal.SIGTERM) == 75
    assert len(list(out.glob("runs/logistic_regression_slide-*/run.json"))) == 1
    unfinished = next(out.glob("runs/abmil-*"))
    assert (unfinished / "checkpoints").is_dir()
    assert "stopped by SIGTERM in finetune" in (unfinished / "log.txt").read_text()

    assert main([*arguments, "--dry-run"]) == 0
    assert "2 runs, 1 to train" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "resuming after finetune epoch" in (unfinished / "log.txt").read_text()
    epochs = [json.loads(line)["epoch"] for line in (unfinished / "metrics.jsonl").open()]
    assert epochs == list(range(1, 61))
    assert results(out)["num_runs"] == 2


@pytest.mark.slow
def test_runs_do_not_load_a_package_of_that_name_from_the_current_folder(
    tmp_path, cohort_folder, tiny
):
    (tmp_path / "gimp_fast").mkdir()
    (tmp_path / "gimp_fast" / "__init__.py").write_text("raise SystemExit('another package')")
    code = "import sys; sys.path.remove(''); from gimp_fast.experiments import main; "
    code += "sys.exit(main(sys.argv[1:]))"
    arguments = [
        "table1",
        "--data",
        str(cohort_folder),
        "--out",
        "out",
        "--only",
        "logistic_regression_slide",
    ]
    command = [sys.executable, "-c", code, *arguments, *tiny]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_ctrl_c_stops_the_runs_too(cohort_folder, tiny, tmp_path):
    out = tmp_path / "out"
    assert (
        stopped_in_the_middle(long_arguments(cohort_folder, out, tiny), out, signal.SIGINT) == 130
    )
    log = next(out.glob("runs/abmil-*/log.txt"))
    assert "stopped by SIGTERM in finetune" in log.read_text()
