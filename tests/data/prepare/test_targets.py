"""Targets besides the labels: from a clinical table into the cohort folder."""

from __future__ import annotations

import json

import numpy as np
import pytest
from builders.cohorts import synthetic_cohort

from gimp_fast import prepare
from gimp_fast.data import open_cohort
from gimp_fast.errors import GimpError

OS, BURDEN = "os=survival:os_days,os_event", "burden=regression:burden"


@pytest.fixture
def raw(tmp_path):
    return synthetic_cohort(tmp_path / "synthetic").parent / "raw"


def run(raw, out, *more, labels="labels.csv", splits=True):
    argv = ["--slides", *map(str, sorted((raw / "slides").iterdir())), "--rna", str(raw / "rna")]
    argv += ["--labels", str(raw / labels), "--out", str(out)]
    argv += ["--splits", str(raw / "splits")] if splits else []
    return prepare.main([*argv, *more])


def rows_of(file):
    header, *lines = file.read_text(encoding="utf-8").splitlines()
    return [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]


def test_a_synthetic_cohort_has_both(cohort_folder):
    cohort, clinical = open_cohort(cohort_folder), cohort_folder.parent / "raw" / "clinical.csv"
    rows = {row["case_id"]: row for row in rows_of(clinical)}
    assert list(cohort.targets) == ["os", "burden"]
    truth = cohort.truth(cohort.case_ids, "os")
    assert truth[:, 0].tolist() == [float(rows[case]["os_days"]) for case in cohort.case_ids]
    assert truth[:, 1].tolist() == [float(rows[case]["os_event"]) for case in cohort.case_ids]
    assert 0 < truth[:, 1].sum() < len(truth)
    numbers = cohort.truth(cohort.case_ids, "burden").tolist()
    assert numbers == [float(rows[case]["burden"]) for case in cohort.case_ids]


def test_a_value_that_is_missing_leaves_the_patient_to_the_other_target(raw, tmp_path, capsys):
    clinical = raw / "clinical.csv"
    lines = clinical.read_text(encoding="utf-8").splitlines()
    case, _, *others = lines[1].split(",")
    lines[1] = ",".join([case, "", *others])
    clinical.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert run(raw, tmp_path / "out", "--target", OS, BURDEN, "--clinical", str(clinical)) == 0
    shown = capsys.readouterr().out
    assert "target    os: 39 patients" in shown
    assert "1 of 40 patients left out" in shown
    cohort = open_cohort(tmp_path / "out")
    assert not cohort.knows(case, "os")
    assert cohort.knows(case, "burden")
    assert cohort.knows(case)
    with pytest.raises(KeyError):
        cohort.truth([case], "os")


@pytest.mark.parametrize("splits", [True, False], ids=["given", "new"])
def test_a_cohort_needs_no_labels(raw, tmp_path, splits, capsys):
    labels = raw / "labels.csv"
    cells = [line.split(",") for line in labels.read_text(encoding="utf-8").splitlines()]
    outcomes = {row["case_id"]: row for row in rows_of(raw / "clinical.csv")}
    lines = ["case_id,slide_id,os_days,os_event"]
    lines += [
        f"{c},{s},{outcomes[c]['os_days']},{outcomes[c]['os_event']}" for c, s, _ in cells[1:]
    ]
    (raw / "slides.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    out = tmp_path / "out"
    assert run(raw, out, "--target", OS, labels="slides.csv", splits=splits) == 0
    assert "unknown label" not in capsys.readouterr().out
    cohort = open_cohort(out)
    assert cohort.classes == ()
    (name,) = cohort.split_names
    split = cohort.split(name)
    assert sum(map(len, split.values())) == 40
    share = cohort.truth(cohort.case_ids, "os")[:, 1].mean()
    if splits:  # given: as they are
        return
    events = [cohort.truth(cases, "os")[:, 1].mean() for cases in split.values()]
    np.testing.assert_allclose(events, share, atol=0.13)  # stratified by the event


def test_classes_can_be_a_target(raw, tmp_path):
    spec = "kind=class:label"
    assert run(raw, tmp_path / "out", "--target", spec) == 0
    cohort = open_cohort(tmp_path / "out")
    assert cohort.classes_of("kind") == cohort.classes == ("SYN-A", "SYN-B")
    np.testing.assert_array_equal(*(cohort.truth(cohort.case_ids, t) for t in (None, "kind")))


def test_faults_are_reported_together_and_nothing_is_written(raw, tmp_path, capsys):
    specs = ["os=survival:os_days,os_even", "burden=regression:os_event"]
    clinical = str(raw / "clinical.csv")
    assert run(raw, tmp_path / "out", "--target", *specs, "--clinical", clinical) == 2
    shown = capsys.readouterr().err
    assert "did you mean 'os_event'" in shown
    assert not (tmp_path / "out").exists()
    assert run(raw, tmp_path / "out", "--target", "os=surviva:a,b") == 2
    assert "survival" in capsys.readouterr().err


def test_targets_belong_to_the_fingerprint(raw, tmp_path):
    clinical = ("--clinical", str(raw / "clinical.csv"))
    assert run(raw, tmp_path / "without") == 0
    assert run(raw, tmp_path / "with", "--target", OS, *clinical) == 0
    prints = {open_cohort(tmp_path / name).fingerprint for name in ("without", "with")}
    assert len(prints) == 2
    table = tmp_path / "with" / "targets.csv"
    table.write_text(table.read_text(encoding="utf-8").replace(",1\n", ",0\n", 1), "utf-8")
    with pytest.raises(GimpError, match="do not match the fingerprint"):
        open_cohort(tmp_path / "with")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["targets"]["os"].pop("unit"), "kind, unit and classes"),
        (lambda m: m["targets"]["os"].update(kind="odd"), "do not match the fingerprint"),
        (lambda m: m["targets"].update(new=m["targets"]["os"]), "do not match the finger"),
        (lambda m: m.update(targets=[]), "kind, unit and classes"),
    ],
    ids=["unit", "kind", "columns", "list"],
)
def test_a_damaged_manifest_is_one_error(raw, tmp_path, change, message):
    out = tmp_path / "out"
    assert run(raw, out, "--target", OS, "--clinical", str(raw / "clinical.csv")) == 0
    manifest = json.loads((out / "cohort.json").read_text(encoding="utf-8"))
    change(manifest)
    (out / "cohort.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(GimpError, match=message):
        open_cohort(out)


def test_covariates_are_kept_as_they_are(raw, tmp_path, capsys):
    clinical = ("--clinical", str(raw / "clinical.csv"))
    assert run(raw, tmp_path / "out", "--covariates", "age,stage", *clinical) == 0
    shown = capsys.readouterr().out
    assert "covariate age: " in shown
    assert "covariate stage: " in shown
    cohort, rows = open_cohort(tmp_path / "out"), rows_of(raw / "clinical.csv")
    assert [c.kind for c in cohort.covariates.values()] == ["numeric", "categorical"]
    assert cohort.covariates["stage"].levels == ("I", "II", "III")
    ages = {row["case_id"]: float(row["age"]) for row in rows if row["age"]}
    assert dict(cohort.covariates["age"].values) == ages
    assert len(ages) < len(rows)
    assert cohort.targets == {}


def test_a_covariate_that_is_not_there_is_a_fault(raw, tmp_path, capsys):
    clinical = ("--clinical", str(raw / "clinical.csv"))
    assert run(raw, tmp_path / "out", "--covariates", "agee", *clinical) == 2
    assert "did you mean 'age'" in capsys.readouterr().err


def test_damaged_covariates_are_one_error(raw, tmp_path):
    out, clinical = tmp_path / "out", ("--clinical", str(raw / "clinical.csv"))
    assert run(raw, out, "--covariates", "stage", *clinical) == 0
    manifest = json.loads((out / "cohort.json").read_text(encoding="utf-8"))
    manifest["covariates"]["stage"]["levels"] = "I"
    (out / "cohort.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(GimpError, match="kind and levels of each covariate"):
        open_cohort(out)
