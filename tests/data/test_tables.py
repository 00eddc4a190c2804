"""Labels and splits: ids stay text, and no patient is in two parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from gimp_fast.data.tables import make_split, read_labels, read_split, split_files
from gimp_fast.errors import FaultError

KNOWN = {"001", "002", "003", "004"}
CASES = {"s1": "001", "s1b": "001", "s2": "002", "s3": "003"}


def write(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file


def test_zero_padded_ids_and_slide_endings(tmp_path):
    text = "\ufeffcase_id,slide_id,label\n007, 0010.svs ,A\n07,010,B\n08,x.y.h5,NA\n"
    rows, faults = read_labels(write(tmp_path / "l.csv", text))
    assert faults == []
    found = [(row.case_id, row.slide_id, row.label) for row in rows]
    assert found[0] == ("007", "0010", "A")
    assert found[-1] == ("08", "x.y", "")


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("case_id,slide_id,label\na,s,A\na,s.svs,A\n", ["duplicate-slide"]),
        ("case_id,slide_id,label\na,s,A\na,t,B\n", ["label-conflict"]),
        ("case_id,slide_id,label\n,s,A\n", ["missing-id"]),
        ("case_id,slide_id,label\n", ["no-rows"]),
        ("case_id,slide_id,label\n,s,A\na,t,A\na,t,A\na,u,B\n",
         ["missing-id", "duplicate-slide", "label-conflict"]),
    ],
    ids=["duplicate", "conflict", "no-id", "no-rows", "three-at-once"],
)  # fmt: skip
def test_bad_labels(tmp_path, text, kinds):
    _, faults = read_labels(write(tmp_path / "l.csv", text))
    assert [fault.kind for fault in faults] == kinds


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("case_id,label\na,A\n", "missing-column"),
        ("", "missing-column"),
        ("case_id,slide_id,label\na,b,c,d\n", "row-length"),
        (None, "missing-file"),
    ],
    ids=["column", "empty", "long-row", "no-file"],
)
def test_unreadable_labels(tmp_path, text, kind):
    file = tmp_path / "l.csv"
    if text is not None:
        write(file, text)
    with pytest.raises(FaultError) as error:
        read_labels(file)
    assert [fault.kind for fault in error.value.faults] == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "case_id,split\n001,train\n002,val\n003,test\n004,train\n",
        ",train,val,test\n0,001,002,003\n1,004,,\n",
        ",train,val,test\n0,s1,s2,s3.svs\n1,s1b,nan,\n2,004,,\n",
    ],
    ids=["long", "clam-cases", "clam-slides"],
)
def test_split_layouts(tmp_path, text):
    parts = read_split(write(tmp_path / "s.csv", text), CASES, KNOWN)
    assert parts == {"001": "train", "002": "val", "003": "test", "004": "train"}


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("case_id,split\n001,train\n001,test\n002,val\n003,test\n", ["split-leak"]),
        (",train,val,test\n0,s1,s1b,s2\n1,,s3,\n", ["split-leak"]),
        ("case_id,split\n001,train\n001,train\n002,val\n003,test\n", ["duplicate-patient"]),
        ("case_id,split\n001,train\n1,train\n002,val\n003,test\n", ["unknown-patient"]),
        ("case_id,split\n001,train\n002,valid\n003,test\n", ["unknown-part"]),
        ("case_id,split\n001,train\n003,test\n", ["empty-part"]),
        (",train,val\n0,001,002\n", ["missing-column"]),
        ("case_id,split\n001,train\n001,val\n009,val\n", ["split-leak", "unknown-patient"]),
    ],
)
def test_bad_splits(tmp_path, text, kinds):
    with pytest.raises(FaultError) as error:
        read_split(write(tmp_path / "s.csv", text), CASES, KNOWN)
    assert [fault.kind for fault in error.value.faults] == kinds


def test_split_folder_leaves_out_clams_other_tables(tmp_path):
    for name in ("splits_1", "splits_0", "splits_0_bool", "splits_0_descriptor"):
        write(tmp_path / f"{name}.csv", "x")
    assert [file.stem for file in split_files([tmp_path])] == ["splits_0", "splits_1"]


def test_new_split_is_stratified_and_repeatable():
    labels = {f"{n:03d}": "AB"[n % 4 == 0] for n in range(100)}
    parts = make_split(labels, 0)
    assert parts == make_split(labels, 0) != make_split(labels, 1)
    assert set(parts) == set(labels)
    for part, size, of_class_b in [("train", 60, 15), ("val", 20, 5), ("test", 20, 5)]:
        chosen = [case for case in parts if parts[case] == part]
        assert len(chosen) == size
        assert sum(labels[case] == "B" for case in chosen) == of_class_b


@pytest.mark.parametrize("count", [1, 2, 3])
def test_new_split_of_too_few_patients(count):
    labels = {str(n): "AB"[n < count] for n in range(count + 2)}
    with pytest.raises(FaultError, match="too-few-patients"):
        make_split(labels, 0)
