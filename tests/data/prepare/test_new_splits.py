"""Splits that `prepare` reads or makes."""

from __future__ import annotations

import csv
import json

from builders.prepare_inputs import CASES

from gimp_fast import prepare
from gimp_fast.data import open_cohort
from gimp_fast.data.cohort_files import SPLIT_COLUMNS, TABLES, fingerprint, read_rows_of
from gimp_fast.files.table import write_table


def test_folds_that_keep_hospitals_together(inputs, capsys):
    assert prepare.main(inputs.argv("--folds", "3", "--site-splits")) == 0
    printed = capsys.readouterr().out
    assert "fold_0: new, site-preserving, fold of 3, seed 0" in printed
    cohort = open_cohort(inputs.out)
    assert cohort.split_names == ("fold_0", "fold_1", "fold_2")
    tested = []
    for name in cohort.split_names:
        sites = {part: {c[5:7] for c in cases} for part, cases in cohort.split(name).items()}
        assert not sites["train"] & sites["val"]
        assert not (sites["train"] | sites["val"]) & sites["test"]
        tested += cohort.split(name)["test"]
    assert sorted(tested) == sorted(CASES)
    assert cohort.split_notes["fold_1"].startswith("new, site-preserving")


def test_sites_of_a_column_give_the_same_split(inputs):
    outs = [inputs.folder / name for name in ("code", "column")]
    assert prepare.main(inputs.argv("--site-splits", out=outs[0])) == 0
    argv = inputs.argv("--site-splits", "--site-column", "hospital", out=outs[1])
    assert prepare.main(argv) == 0
    code, column = (open_cohort(out).split("split_0") for out in outs)
    assert code == column


def test_a_random_split_says_how_many_sites_it_shares(inputs, capsys):
    assert prepare.main(inputs.argv()) == 0
    parts = open_cohort(inputs.out).split("split_0")
    shared = {case[5:7] for case in parts["train"]} & {case[5:7] for case in parts["test"]}
    assert f"in train and in test: {len(shared)}\n" in capsys.readouterr().out
    assert shared


def test_splits_of_two_parts_say_what_became_of_them(inputs, capsys):
    lines = [",train,val", *(f"{n},{a},{b}" for n, (a, b) in enumerate(
        zip(CASES[:15], CASES[15:], strict=True)))]  # fmt: skip
    (inputs.folder / "splits_0.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert prepare.main(inputs.argv("--splits", inputs.folder / "splits_0.csv")) == 0
    assert "test: the file's validation part" in capsys.readouterr().out
    assert sorted(open_cohort(inputs.out).split("splits_0")["test"]) == sorted(CASES[15:])


def test_new_splits_beside_given_ones_are_refused(inputs, capsys):
    assert prepare.main(inputs.argv("--splits", inputs.labels, "--folds", "5")) == 2
    assert "leave out --folds" in capsys.readouterr().err


def test_a_cohort_knows_the_hospital_of_each_patient(inputs):
    for name, options in (("code", ()), ("column", ("--site-column", "hospital"))):
        out = inputs.folder / name
        assert prepare.main(inputs.argv("--site-splits", *options, out=out)) == 0
        cohort = open_cohort(out)
        assert len({cohort.site(case) for case in CASES}) == 6
        assert all(cohort.site(case) == cohort.site(CASES[0]) for case in CASES
                   if case[5:7] == CASES[0][5:7])  # fmt: skip
        assert cohort.keeps_sites_apart("split_0")
    assert {open_cohort(inputs.folder / "code").site(case) for case in CASES} == {
        case[5:7] for case in CASES
    }


def test_random_splits_and_unknown_hospitals_do_not_keep_hospitals_apart(inputs):
    assert prepare.main(inputs.argv()) == 0
    assert not open_cohort(inputs.out).keeps_sites_apart("split_0")
    labels = inputs.labels.read_text(encoding="utf-8").splitlines()
    labels[1] = labels[1].rpartition(",")[0] + ","
    inputs.labels.write_text("\n".join(labels) + "\n", encoding="utf-8")
    splits = inputs.folder / "code" / "splits"
    assert prepare.main(inputs.argv("--site-splits", out=splits.parent)) == 0
    argv = inputs.argv("--splits", splits, "--site-column", "hospital", out=inputs.folder / "gap")
    assert prepare.main(argv) == 0
    cohort = open_cohort(inputs.folder / "gap")
    assert cohort.site(labels[1].partition(",")[0]) is None
    assert not cohort.keeps_sites_apart("split_0")


def test_a_cohort_of_an_earlier_version_reads_barcodes(inputs):
    assert prepare.main(inputs.argv()) == 0
    file = inputs.out / "patients.csv"
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        assert row.pop("site") == row["case_id"][5:7]
    write_table(file, rows, tuple(rows[0]))
    manifest = json.loads((inputs.out / "cohort.json").read_text(encoding="utf-8"))
    tables = {name: read_rows_of(inputs.out / name, columns) for name, columns in TABLES.items()}
    splits = {"split_0": read_rows_of(inputs.out / "splits" / "split_0.csv", SPLIT_COLUMNS)}
    manifest["fingerprint"] = fingerprint(tables, splits, manifest)
    (inputs.out / "cohort.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert open_cohort(inputs.out).site(CASES[0]) == CASES[0][5:7]
