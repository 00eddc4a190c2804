"""What `prepare` says of classes, parts and hospitals."""

from __future__ import annotations

import json

from builders.prepare_inputs import CASES, Inputs

from gimp_fast import prepare
from gimp_fast.data import open_cohort


def relabelled(inputs: Inputs, label_of) -> None:
    """Write the labels again; ``label_of`` is given the number and the id of a patient."""
    rows = [f"{c},{c}-01Z,{label_of(n, c)},{c[5:7]}" for n, c in enumerate(CASES)]
    text = "\n".join(["case_id,slide_id,label,hospital", *rows])
    inputs.labels.write_text(f"{text}\n", encoding="utf-8")


def test_a_hospital_that_tells_the_class_is_said(inputs, capsys):
    assert prepare.main(inputs.argv()) == 0
    printed = capsys.readouterr().out
    assert "caution: hospital and class go together" in printed
    assert "right for 30 of 30 patients, where the largest class has 15" in printed
    (text,) = open_cohort(inputs.out).cautions
    assert text.startswith("hospital and class go together")


def test_hospitals_of_a_column_are_used(inputs, capsys):
    relabelled(inputs, lambda n, case: "XY"[n // 6 % 2])
    assert prepare.main(inputs.argv(out=inputs.folder / "a")) == 0
    assert "caution" not in capsys.readouterr().out
    rows = [f"{c},{c}-01Z,{'XY'[n // 6 % 2]},H{n // 6 % 2}" for n, c in enumerate(CASES)]
    text = "\n".join(["case_id,slide_id,label,hospital", *rows])
    inputs.labels.write_text(f"{text}\n", encoding="utf-8")
    assert prepare.main(inputs.argv("--site-column", "hospital", out=inputs.folder / "b")) == 0
    printed = capsys.readouterr().out
    assert "caution: hospital and class go together" in printed
    assert "TCGA" not in printed.split("caution:")[1]


def test_parts_without_a_class_are_said_and_counted(inputs, capsys):
    relabelled(inputs, lambda n, case: "XY"[n // 6 % 2])
    split, report = inputs.folder / "mine.csv", inputs.folder / "report.json"
    lines = [
        f"{case},{'train' if n // 6 % 2 == 0 else 'val' if n < 12 else 'test'}"
        for n, case in enumerate(CASES)
    ]
    split.write_text("\n".join(["case_id,split", *lines]) + "\n", encoding="utf-8")
    assert prepare.main(inputs.argv("--splits", str(split), "--report", str(report))) == 0
    printed = capsys.readouterr().out
    assert "train 18 (18 X, 0 Y), val 6 (0 X, 6 Y), test 6 (0 X, 6 Y)" in printed
    assert "caution: split 'mine': all 18 train patients are 'X' ('Y' has 6 in val and 6" in printed
    cautions = json.loads(report.read_text(encoding="utf-8"))["cautions"]
    parts = [text.split(" ")[4] for text in cautions]
    assert parts == ["train", "val", "test"]
