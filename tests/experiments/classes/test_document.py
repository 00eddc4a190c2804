"""Tables and pages of made-up predictions: three classes, several seeds, patients in two folds."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from gimp_fast.errors import GimpError
from gimp_fast.experiments.catalog import experiment
from gimp_fast.experiments.classes.document import document
from gimp_fast.experiments.classes.results import summarise
from gimp_fast.experiments.document import write_document
from gimp_fast.experiments.finished import Call, Finished, read_run
from gimp_fast.experiments.plan import Plan, PlannedRun
from gimp_fast.runs.records import CasePredictions, RunRecord

CLASSES = ("A & B", "C_1", "<D>")
PATIENTS = [f"P{number:02d}" for number in range(30)]
SPLITS = ("random_0", "random_1", "site_0")
SEEDS = (0, 1)


def made_run(row, split, seed, skill, tmp_path):
    rng = np.random.default_rng([len(row), SPLITS.index(split), seed])
    cases = PATIENTS if split == "site_0" else PATIENTS[:20]  # in both random folds
    label = np.array([int(case[1:]) % 3 for case in cases] * 2)
    scores = np.exp(rng.normal(size=(len(label), 3)) + skill * np.eye(3)[label])
    probabilities = scores / scores.sum(1, keepdims=True)
    parts = np.repeat(["val", "test"], len(cases))
    predictions = CasePredictions(
        CLASSES, np.array(cases * 2), parts, label, probabilities.argmax(1), probabilities
    )
    run = PlannedRun(row, split, seed, SimpleNamespace(method=row), f"{row}-{split}-{seed}")
    return run, Finished(run, tmp_path / run.digest, record_of(run), predictions)


def record_of(run, **changes):
    facts = {"row": run.row, "split": run.split, "seed": run.seed, "digest": run.digest}
    facts |= {"cohort": "f" * 64, "classes": CLASSES, "best_epoch": 3}
    return RunRecord(**facts | {"seconds": 1.0, "cpu_seconds": 1.0} | changes)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folder and results of table 1 with two rows, one run of which has failed."""
    tmp_path, table = tmp_path_factory.mktemp("made"), experiment("table1")
    made = [
        made_run(row, split, seed, skill, tmp_path)
        for row, skill in (("abmil", 0.5), ("gimp", 1.5))
        for seed in SEEDS
        for split in SPLITS
    ]
    plan = Plan(
        {
            ("table1", row): tuple(run for run, _ in made if run.row == row)
            for row in ("abmil", "gimp")
        },
        {("table1", "snn"): "needs RNA"},
    )
    finished = {run.digest: one for run, one in made}
    failed = made[0][0]
    del finished[failed.digest]
    cohort = SimpleNamespace(
        name="three", synthetic=False, fingerprint="f" * 64, classes=CLASSES,
        __len__=lambda self: 30, keeps_sites_apart=lambda self, split: split == "site_0",
        site=lambda self, case: f"hospital {int(case[1:]) // 5}",
    )  # fmt: skip
    cohort = type("C", (), vars(cohort))()
    call = Call(
        cohort, SPLITS, SEEDS, "small", (), "python -m ...", {"gimp_fast": "0"}, resamples=200
    )
    errors = {failed.digest: "ValueError: <no> luck"}
    out = tmp_path / "out"
    page = write_document(document(summarise(table, plan, finished, errors, call)), out)
    return SimpleNamespace(
        out=out,
        page=page.read_text(encoding="utf-8"),
        results=json.loads((out / "results.json").read_text(encoding="utf-8")),
        made=made,
    )


def row_of(written, key, group):
    row = next(row for row in written.results["rows"] if row["key"] == key)
    return row["groups"][group]


def test_each_group_counts_its_own_runs(written):
    abmil = row_of(written, "abmil", "random")
    assert (abmil["runs"], abmil["of"]) == (3, 4)
    assert abmil["failed"] == {"abmil random_0 seed 0": "ValueError: <no> luck"}
    assert abmil["test"]["accuracy"]["n"] == 60
    assert abmil["test"]["patients"] == 20
    assert row_of(written, "gimp", "site")["test"]["accuracy"]["n"] == 60
    assert written.results["failed"] == abmil["failed"]


def test_the_area_is_that_of_scikit_learn_for_three_classes(written):
    areas = []
    for run, one in written.made:
        if run.row == "gimp" and run.split != "site_0":
            test = one.predictions.of("test")
            areas.append(roc_auc_score(test.label, test.probabilities, multi_class="ovr"))
    found = row_of(written, "gimp", "random")["test"]["auc"]
    assert found["value"] == pytest.approx(np.mean(areas))
    assert found["low"] < found["value"] < found["high"]


def test_patients_of_several_folds_are_compared_by_the_bootstrap(written):
    compared = row_of(written, "abmil", "random")["versus"]
    versus = compared["accuracy"]
    assert versus["mcnemar"] is None
    assert versus["value"] < 0
    assert compared["auc"]["value"] < 0 < compared["cross_entropy"]["value"]
    assert 0 < versus["p"] <= versus["p_holm"] <= 1
    spread = row_of(written, "gimp", "random")["test"]["accuracy_of_runs"]
    assert len(spread["values"]) == 4
    assert spread["sd"] == pytest.approx(np.std(spread["values"], ddof=1))


def test_where_splits_keep_hospitals_apart_hospitals_are_drawn(written):
    drawn = {group["name"]: group["bootstrap_draws"] for group in written.results["groups"]}
    assert drawn == {"random": "20 patients", "site": "6 hospitals"}
    text = (written.out / "table.md").read_text(encoding="utf-8")
    assert "in random splits 20 patients, each with all their predictions" in text
    assert "in site splits 6 hospitals, each with all its patients" in text
    assert row_of(written, "abmil", "site")["versus"]["accuracy"]["mcnemar"] is None


def test_the_page_names_what_is_missing_and_escapes_names(written):
    assert "1 of 12 runs failed" in written.page.replace("</strong>", "").replace("\n", " ")
    assert "ValueError: &lt;no&gt; luck" in written.page
    assert "&lt;D&gt;" in written.page
    assert "<D>" not in written.page
    assert "Synthetic" not in written.page
    assert "needs RNA" in written.page
    assert "3 of 4 runs" in (written.out / "table.md").read_text(encoding="utf-8")
    drawn = {path.stem for path in (written.out / "figures").glob("*.svg")}
    assert drawn == {
        f"{kind}_{group}" for kind in ("accuracy", "roc", "reliability")
        for group in ("random", "site")
    }  # fmt: skip


def test_damaged_files_of_a_run_are_named(tmp_path):
    run = PlannedRun("abmil", "random_0", 0, None, "a" * 64)
    record = tmp_path / "run.json"
    cohort = {"name": "c", "synthetic": True, "split": "random_0", "classes": CLASSES, "n": {}}
    metrics = {"cohort": cohort, "modalities": "slide", "seed": 0}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "config.yaml").write_text("method: abmil\n")
    record.write_text("{")
    with pytest.raises(GimpError, match=r"run\.json: cannot be read.*; remove .* and run again"):
        read_run(run, tmp_path)
    record.write_text(record_of(run, digest="b" * 64).to_json())
    with pytest.raises(GimpError, match="another run"):
        read_run(run, tmp_path)
    record.write_text(record_of(run).to_json())
    header = "case_id,split,label,prediction," + ",".join(f"prob_{name}" for name in CLASSES)
    (tmp_path / "predictions.csv").write_text(f"{header}\nP1,test,C_1,E,0.1,0.2,0.7\n")
    with pytest.raises(GimpError, match=r"predictions\.csv: cannot be read: .*found \['E'\]"):
        read_run(run, tmp_path)
    (tmp_path / "predictions.csv").write_text(f"{header}\nP1,test,C_1,C_1,0.1,0.2,0.7\n")
    assert read_run(run, tmp_path).predictions.of("test").hits.tolist() == [True]
