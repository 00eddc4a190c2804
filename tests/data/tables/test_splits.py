"""Splits: every layout is read, none leaks, and a split that is made is a function of its seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gimp_fast.data.names import PARTS, site_of
from gimp_fast.data.tables.labels import read_labels
from gimp_fast.data.tables.new_splits import (
    check_split,
    make_split,
    make_splits,
    shared_sites,
    sites_from_table,
)
from gimp_fast.data.tables.splits import read_splits, split_files
from gimp_fast.errors import FaultError

KNOWN = {"001", "002", "003", "004"}
CASES = {"s1": "001", "s1b": "001", "s2": "002", "s3": "003"}
LABELS = {"001": "A", "002": "B", "003": "A", "004": "B"}
PARTS_OF = {"001": "train", "002": "val", "003": "test", "004": "train"}
MANY = {f"{n:03d}": "AB"[n % 4 == 0] for n in range(100)}


def write(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file


def read(file: Path, text: str, labels=LABELS, cases=CASES, seed=0):
    return read_splits(write(file, text), cases, set(labels), labels, seed=seed)


def kinds_of(error: pytest.ExceptionInfo) -> list[str]:
    return [fault.kind for fault in error.value.faults]


@pytest.mark.parametrize(
    "text",
    [
        "case_id,split\n001,train\n002,val\n003,test\n004,train\n",
        "PATIENT;split\n001;Training\n002;dev\n003;Testing\n004;train\n",
        ",train,val,test\n0,001,002,003\n1,004,,\n",
        ",train,valid,test\n0,001,002,003\n1,004\n",
        ",train,val,test\n0,s1,s2,s3.svs\n1,s1b,nan,\n2,004,,\n",
        ",train,train_label,val,val_label,test,test_label\n0,s1,0,s2,1.0,s3,0.0\n1,004,1,,,,\n",
        "\tTrain\tValidation\tTest\n0\ts1\ts2\ts3\n1\t004\t\t\n",
    ],
    ids=["long", "long-spelt", "clam-cases", "clam-short-rows", "clam-slides", "transmil", "tsv"],
)
def test_split_layouts(tmp_path, text):
    splits = read(tmp_path / "splits_7.csv", text)
    assert list(splits) == ["splits_7"]
    assert splits["splits_7"].parts == PARTS_OF
    assert splits["splits_7"].note == ""


def columns(**lists: list[str]) -> str:
    rows = max(map(len, lists.values()))
    padded = {name: ids + [""] * (rows - len(ids)) for name, ids in lists.items()}
    body = [",".join([str(n), *row]) for n, row in enumerate(zip(*padded.values(), strict=True))]
    return "\n".join([",".join(["", *lists]), *body]) + "\n"


TRAIN, TEST = sorted(MANY)[:80], sorted(MANY)[80:]
LONG = "case_id,split\n" + "".join(
    f"{case},{part}\n" for part, cases in [("train", TRAIN), ("test", TEST)] for case in cases
)
TWO_PARTS = {
    "survpath": ("splits_0.csv", columns(train=TRAIN, val=TEST)),
    "read-back": ("splits_0.csv", "Unnamed: 0" + columns(train=TRAIN, test=TEST)),
    "train-test": ("splits_0.csv", columns(train=TRAIN, test=TEST)),
    "long": ("splits_0.csv", LONG),
    "stamp": (
        "splits.json",
        json.dumps({"splits": [{"train_patients": TRAIN, "test_patients": TEST}]}),
    ),
}


@pytest.mark.parametrize("layout", TWO_PARTS)
def test_validation_is_drawn_where_a_file_has_none(tmp_path, layout):
    name, text = TWO_PARTS[layout]
    split = read(tmp_path / name, text, MANY, {}, seed=3)["splits_0"]
    assert set(split.parts) == set(MANY)
    assert sorted(case for case, part in split.parts.items() if part == "test") == TEST
    drawn = sorted(case for case, part in split.parts.items() if part == "val")
    assert set(drawn) < set(TRAIN)
    assert [sum(MANY[case] == label for case in drawn) for label in "AB"] == [15, 5]
    expected = "validation: 20 of 80 training patients, drawn by label with seed 3"
    if layout == "survpath":
        expected = f"test: the file's validation part, as it has no test part; {expected}"
    assert split.note == expected
    assert read(tmp_path / name, text, MANY, {}, seed=3)["splits_0"] == split
    assert read(tmp_path / name, text, MANY, {}, seed=4)["splits_0"].parts != split.parts


def test_the_draw_does_not_depend_on_the_order_of_the_file(tmp_path):
    forward = read(tmp_path / "s.csv", columns(train=TRAIN, val=TEST), MANY, {})
    backward = read(tmp_path / "s.csv", columns(train=TRAIN[::-1], val=TEST[::-1]), MANY, {})
    assert forward["s"].parts == backward["s"].parts


def test_rare_and_unlabelled_patients_stay_in_train(tmp_path):
    labels = {"a": "A", "b": "A", "c": "B", "e": "A"}
    text = columns(train=["a", "b", "c", "d"], val=["e"])
    file = write(tmp_path / "s.csv", text)
    split = read_splits(file, {}, {*"abcde"}, labels, seed=0)["s"]
    assert (split.parts["c"], split.parts["d"], split.parts["e"]) == ("train", "train", "test")
    assert sorted(split.parts[case] for case in "ab") == ["train", "val"]
    assert "1 of 3 training patients" in split.note
    assert split.note.endswith("no patient of B for validation, as train has one")


def test_stamp_gives_several_splits(tmp_path):
    folds = [sorted(MANY)[k::5] for k in range(5)]
    splits = [
        {"train_patients": sorted(set(MANY) - set(fold)), "test_patients": fold} for fold in folds
    ]
    read_back = read(tmp_path / "splits.json", json.dumps({"splits": splits}), MANY, {})
    assert list(read_back) == [f"splits_{k}" for k in range(5)]
    for split, fold in zip(read_back.values(), folds, strict=True):
        assert sorted(case for case, part in split.parts.items() if part == "test") == fold


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("case_id,split\n001,train\n001,test\n002,val\n003,test\n", ["split-leak"]),
        (",train,val,test\n0,s1,s1b,s2\n1,,s3,\n", ["split-leak"]),
        ("case_id,split\n001,train\n001,train\n002,val\n003,test\n", ["duplicate-patient"]),
        ("case_id,split\n001,train\n1,train\n002,val\n003,test\n", ["unknown-patient"]),
        ("case_id,split\n001,train\n002,holdout\n003,test\n004,holdout\n", ["unknown-part"]),
        ("case_id,split\n001,train\n002,val\n", ["empty-part"]),
        ("case_id,split\n001,train\n", ["empty-part"]),
        ("case_id,split\n", ["empty-part"]),
        ("case_id,split\n001,train\n003,test\n", ["too-few-patients"]),
        (",train,val,test\n0,001,,003\n", ["empty-part"]),
        (",train,val\n0,001,\n1,002,\n", ["empty-part"]),
        (",val,test\n0,001,002\n", ["missing-column"]),
        (",train\n0,001\n", ["missing-column"]),
        ("", ["missing-column"]),
        (",train,val,dev\n0,001,002,003\n", ["duplicate-column"]),
        (",train,wal,test\n0,001,002,003\n", ["unknown-part"]),
        (",train,val,\n0,001,002,003\n", ["unknown-part"]),
        (",train,val,test\n0,001,002,003,004\n", ["row-length"]),
        ("case_id,split\n001,train\n001,val\n009,val\n", ["split-leak", "unknown-patient"]),
    ],
)
def test_bad_splits(tmp_path, text, kinds):
    with pytest.raises(FaultError) as error:
        read(tmp_path / "s.csv", text)
    assert kinds_of(error) == kinds
    assert str(tmp_path / "s.csv") in error.value.faults[0].where


@pytest.mark.parametrize(
    ("content", "kinds"),
    [
        ("[1, 2", ["unreadable-file"]),
        ("[" * 100_000, ["unreadable-file"]),
        ('{"splits": [], "splits": [1]}', ["unreadable-file"]),
        ('{"splits": []}', ["split-layout"]),
        ("[]", ["split-layout"]),
        ('{"splits": [3, {"train_patients": []}]}', ["split-layout"] * 2),
        ('{"splits": [{"train_patients": [1], "test_patients": ["002"]}]}', ["split-layout"]),
        ('{"splits": [{"train_patients": "001", "test_patients": ["002"]}]}', ["split-layout"]),
        ('{"splits": [{"train_patients": ["001"], "test_patients": ["001"]}]}', ["split-leak"]),
        (
            '{"splits": [{"train_patients": ["001", "003"], "test_patients": ["9"]},'
            ' {"train_patients": ["001", "001", "003"], "test_patients": ["002"]}]}',
            ["unknown-patient", "duplicate-patient"],
        ),
    ],
)
def test_bad_json_splits(tmp_path, content, kinds):
    with pytest.raises(FaultError) as error:
        read(tmp_path / "splits.json", content)
    assert kinds_of(error) == kinds


def test_an_id_that_is_a_patient_and_another_patients_slide(tmp_path):
    with pytest.raises(FaultError, match=r"ambiguous-id") as error:
        read(tmp_path / "s.csv", ",train,val,test\n0,001,002,003\n", cases={"001": "002"})
    assert "row 2 [train]" in error.value.faults[0].where


def test_samples_of_one_patient_are_one_patient(tmp_path):
    ids = ["TCGA-05-4244-01", "TCGA-05-4244-11", "TCGA-05-4245-01"]
    text = columns(train=ids[:1], val=ids[1:2], test=ids[2:])
    with pytest.raises(FaultError, match=r"patient 'TCGA-05-4244' in train .* and val"):
        read(tmp_path / "s.csv", text, dict.fromkeys(ids, "A"), {})


def test_split_folder_leaves_out_clams_other_tables(tmp_path):
    names = ("splits_1.csv", "splits_0.csv", "splits_0_bool.csv", "splits_0_descriptor.csv")
    for name in (*names, "s.tsv", "notes.txt", "config.json"):
        write(tmp_path / name, "x")
    assert [file.stem for file in split_files([tmp_path])] == ["s", "splits_0", "splits_1"]


@pytest.mark.parametrize(
    "names",
    [["a/s.csv", "b/s.csv"], ["a/s.csv", "b/s.tsv"], ["a/splits.json", "b/splits_3.csv"]],
    ids=["twice", "csv-and-tsv", "numbered"],
)
def test_split_files_that_cannot_be_told_apart(tmp_path, names):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, "x")
    with pytest.raises(FaultError, match="two split files of this name"):
        split_files([tmp_path / "a", tmp_path / "b"])


def test_a_folder_without_splits(tmp_path):
    with pytest.raises(FaultError, match="missing-file"):
        split_files([tmp_path])


def test_new_split_is_stratified_and_repeatable():
    parts = make_split(MANY, 0)
    assert parts == make_split(MANY, 0) != make_split(MANY, 1)
    assert make_splits(MANY, seed=0) == {"split_0": parts}
    assert set(parts) == set(MANY)
    for part, size, of_class_b in [("train", 60, 15), ("val", 20, 5), ("test", 20, 5)]:
        chosen = [case for case in parts if parts[case] == part]
        assert len(chosen) == size
        assert sum(MANY[case] == "B" for case in chosen) == of_class_b


@pytest.mark.parametrize("count", [1, 2, 3])
def test_new_split_of_too_few_patients(count):
    labels = {str(n): "AB"[n < count] for n in range(count + 2)}
    with pytest.raises(FaultError, match="too-few-patients"):
        make_split(labels, 0)


@pytest.mark.parametrize("folds", [3, 5, 7])
def test_folds_take_turns(folds):
    splits = make_splits(MANY, folds=folds, seed=1)
    assert list(splits) == [f"fold_{k}" for k in range(folds)]
    chosen = [
        {part: {case for case in MANY if parts[case] == part} for part in PARTS}
        for parts in splits.values()
    ]
    tests = [parts["test"] for parts in chosen]
    assert set().union(*tests) == set(MANY)
    assert sum(map(len, tests)) == len(MANY)
    for k, parts in enumerate(chosen):
        assert parts["val"] == tests[(k + 1) % folds]
        assert abs(sum(MANY[case] == "B" for case in parts["test"]) - 25 / folds) < 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"folds": 2}, "found 2 folds; expected 1, or 3 and more"),
        ({"folds": 0}, "found 0 folds"),
        ({"seed": -1}, "found seed -1"),
        ({"labels": {}}, "found no patients"),
        ({"folds": 26}, "class 'B' with 25 patients; expected one or more for each of 26 folds"),
        ({"sites": {"000": "x"}}, "99 of 100 patients without a site, first '001'"),
        (
            {"sites": {case: "xy"[label == "A"] for case, label in MANY.items()}},
            "class 'A' with 75 patients at 1 sites; expected 3 sites",
        ),
        ({"labels": MANY | {"x": "C", "y": "C"}}, "2 patients of class 'C'"),
    ],
    ids=["two", "none", "seed", "empty", "many-folds", "no-site", "few-sites", "rare-class"],
)
def test_splits_that_cannot_be_made(arguments, message):
    with pytest.raises(FaultError, match=message):
        make_splits(**({"labels": MANY} | arguments))


def test_a_fault_names_the_part_that_lacks_a_class():
    labels = {str(n): label for n, label in enumerate("BBAAAB")}
    sites = {str(n): site for n, site in enumerate("xyzwxz")}
    with pytest.raises(FaultError) as error:
        make_splits(labels, sites=sites)
    assert str(error.value).startswith(
        "split_0 [val]: found no patient of class 'B', which has 3 patients at 3 sites; "
    )
    sizes = {"A": 8, "P": 3, "Q": 3, "R": 3}
    rare = {f"{label}{n}": label for label, size in sizes.items() for n in range(size)}
    with pytest.raises(FaultError, match=r"split_0 \[test\]: found no patient of class") as error:
        make_splits(rare)
    assert set(kinds_of(error)) == {"class-missing"}


IDS = st.dictionaries(
    st.text("0123456789ab-", min_size=1, max_size=5),
    st.tuples(st.sampled_from("ABC"), st.integers(0, 9)),
    min_size=1,
    max_size=60,
)


def _made(labels, folds, sites, seed):
    try:
        return make_splits(labels, folds=folds, sites=sites, seed=seed)
    except FaultError:
        return None


def _missing(splits, labels):
    held = {(name, part, labels[c]) for name, parts in splits.items() for c, part in parts.items()}
    every = {(n, part, label) for n in splits for part in PARTS for label in labels.values()}
    return every - held


@pytest.mark.parametrize("by_site", [False, True], ids=["patients", "sites"])
@settings(max_examples=60, deadline=None)
@given(patients=IDS, folds=st.sampled_from([1, 3, 4]), seed=st.integers(0, 2**32 - 1))
def test_no_patient_and_no_site_is_in_two_parts(by_site, patients, folds, seed):
    labels = {case: label for case, (label, _) in patients.items()}
    sites = {case: f"s{site}" for case, (_, site) in patients.items()} if by_site else None
    splits = _made(labels, folds, sites, seed)
    backwards = dict(reversed(labels.items()))
    assert _made(backwards, folds, sites, seed) == splits
    for parts in (splits or {}).values():
        assert set(parts) == set(labels)
        for case in sites or ():
            same = {parts[other] for other in labels if sites[other] == sites[case]}
            assert same == {parts[case]}
        assert shared_sites(parts, sites or {}) == 0
    assert not _missing(splits or {}, labels)


def test_leaks_are_found():
    parts = {"a": "train", "b": "test", "c": "val", "d": "train"}
    check_split(parts)
    check_split(parts, {"a": "x", "b": "y", "d": "x"})
    with pytest.raises(FaultError, match=r"fold: found site 'x' in train \('a'\) and test \('b'\)"):
        check_split(parts, {"a": "x", "b": "x", "c": "y"}, where="fold")
    barcodes = {"TCGA-05-4244-01A": "train", "TCGA-05-4244-11A": "test"}
    with pytest.raises(FaultError, match="split-leak"):
        check_split(barcodes)
    assert shared_sites(parts, {"a": "x", "b": "x", "c": "y", "d": "x"}) == 1


def test_sites_from_a_table(tmp_path):
    file = write(tmp_path / "l.csv", "case_id,slide_id,hospital\n01,s,05\n01,t,05\n02,u,\n3,v,x\n")
    assert sites_from_table(file, "hospital") == {"01": "05", "3": "x"}
    with pytest.raises(FaultError, match="no column site among case_id, slide_id, hospital"):
        sites_from_table(file, "site")
    write(file, "PATIENT,site\n01,a\n01,b\n")
    with pytest.raises(FaultError, match=r"row 3: found site 'b' .*site-conflict"):
        sites_from_table(file, "site")


def real_labels(folder: Path):
    rows = read_labels(folder / "tcga_nsclc" / "slides.csv").value
    return {row.case_id: row.label for row in rows}, {row.slide_id: row.case_id for row in rows}


def test_real_splits(real_data):
    labels, cases = real_labels(real_data)
    sites = {case: site_of(case) for case in labels}
    shared = {}
    for file in split_files([real_data / "tcga_nsclc" / "splits"]):
        for name, split in read_splits(file, cases, set(labels), labels, seed=0).items():
            assert (len(split.parts), split.note) == (701, "")
            shared[name] = shared_sites(split.parts, sites)
    assert len(shared) == 10
    assert all((count == 0) == name.startswith("site") for name, count in shared.items())


@pytest.mark.parametrize("folds", [1, 5])
def test_real_patients_split_by_site(real_data, folds):
    labels, _ = real_labels(real_data)
    sites = {case: site_of(case) for case in labels}
    for parts in make_splits(labels, folds=folds, sites=sites).values():
        assert shared_sites(parts, sites) == 0
        share = {p: sum(part == p for part in parts.values()) / len(parts) for p in PARTS}
        assert share == pytest.approx({"train": 0.6, "val": 0.2, "test": 0.2}, abs=0.02)
