"""What is said of classes, parts and hospitals."""

from __future__ import annotations

import numpy as np
import pytest

from gimp_fast.data.class_checks import (
    class_cautions,
    cohort_cautions,
    count_classes,
    counts_text,
    modality_cautions,
    not_learnable,
    site_cautions,
    sites_of_barcodes,
    split_cautions,
)


def counts(**parts: str):
    """``counts(train="AAB", val="A", test="B")``: a letter is the class of a patient."""
    labels, part_of = {}, {}
    for part, letters in parts.items():
        for place, letter in enumerate(letters):
            labels[f"{part}{place}"], part_of[f"{part}{place}"] = letter, part
    return count_classes(labels, part_of)


def test_every_part_counts_every_class():
    found = counts(train="AAB", val="A", test="B")
    assert found == {"train": {"A": 2, "B": 1}, "val": {"A": 1, "B": 0}, "test": {"A": 0, "B": 1}}
    expected = "train 3 (2 A, 1 B), val 1 (1 A, 0 B), test 1 (0 A, 1 B)"
    assert counts_text(found) == expected


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"train": "AAB", "val": "AB", "test": "AB"}, []),
        (
            {"train": "AA", "val": "AB", "test": "BB"},
            [
                "all 2 train patients are 'A' ('B' has 1 in val and 2 in test): no model can",
                "all 2 test patients are 'B'",
            ],
        ),
        ({"train": "AB", "val": "A", "test": "AB"}, ["the only val patient is 'A'"]),
        (
            {"train": "ABC", "val": "ABC", "test": "AB"},
            ["test has no patient of 'C' ('C' has 1 in train and 1 in val): the test AUC"],
        ),
        (
            {"train": "AB", "val": "ABCD", "test": "ABC"},
            ["train has no patient of 'C' and 'D' ('C' has 1 in val and 1 in test; 'D'", "test"],
        ),
        ({"train": "AA", "val": "A", "test": "A"}, ["all its patients are 'A': there is nothing"]),
    ],
    ids=["whole", "train-and-test", "val", "rare-in-test", "two-unlearnable", "one-class"],
)
def test_parts_without_a_class(parts, said):
    found = list(split_cautions(counts(**parts)))
    assert len(found) == len(said)
    assert all(text.startswith(start) for text, start in zip(found, said, strict=True))
    learnable = set(parts["train"]) == set("".join(parts.values())) != {"A"}
    assert (not_learnable(counts(**parts)) is None) == learnable


def test_classes_with_too_few_patients():
    labels = dict(enumerate("AAABBBCD" + "D"))
    one, two = class_cautions(labels)
    assert one.startswith("class 'C' has 1 patient: too few")
    assert two.startswith("class 'D' has 2 patients: too few")


def test_a_class_that_lacks_a_modality():
    labels = {"a": "A", "b": "B", "c": "B"}
    has = {"slides": ["a", "b", "c"], "RNA": ["b", "c"]}
    (text,) = modality_cautions(labels, has)
    assert text.startswith("no patient of 'A' has RNA, and 2 of the other classes have")
    assert list(modality_cautions(labels, {"RNA": []})) == []


def hospitals(*groups: str):
    """Labels and sites of patients: one text a hospital, a letter a patient."""
    cases = [(f"{s}-{n}", k, s) for s, text in enumerate(groups) for n, k in enumerate(text)]
    return {case: k for case, k, _ in cases}, {case: str(site) for case, _, site in cases}


@pytest.mark.parametrize(
    ("groups", "numbers"),
    [
        (("AAAA", "BBBB"), "right for 8 of 8 patients, where the largest class has 4; 8 of them"),
        (("AA", "AA", "BB", "B"), "right for 6 of 6 patients, where the largest class has 4"),
        (("A" * 30, "B" * 29 + "A"), "right for 59 of 60 patients"),
        (("A" * 48, "B" * 47, "AABBB"), "95 of them are at hospitals of a single class"),
        (("AB" * 20, "BA" * 10, "C" * 5), "who is 'C'"),
    ],
    ids=["all", "with-a-single-patient", "nearly", "95-percent", "one-class-of-three"],
)
def test_hospitals_that_tell_the_class(groups, numbers):
    (text,) = site_cautions(*hospitals(*groups))
    assert "hospital and class go together" in text
    assert numbers in text


@pytest.mark.parametrize(
    "groups",
    [
        ("ABAB", "BABA"),
        ("AAAABB", "BBBBAA"),
        ("ABABABAB",),
        ("A", "B", "A", "B"),
        ("A" * 20, "A" * 20, "A" * 20 + "B"),
        (),
    ],
    ids=["mixed", "leaning", "one-hospital", "single-patients", "rare-class", "unknown"],
)
def test_hospitals_that_do_not(groups):
    assert list(site_cautions(*hospitals(*groups))) == []


@pytest.mark.parametrize("size", [2, 3, 10])
def test_chance_is_no_confounding(size):
    rng, said = np.random.default_rng(0), 0
    for _ in range(50):
        letters = rng.choice(list("AB"), 60)
        groups = ["".join(letters[start : start + size]) for start in range(0, 60, size)]
        said += bool(list(site_cautions(*hospitals(*groups))))
    assert said == 0


def test_a_cohort_is_told_all_of_it():
    labels = {f"TCGA-{site}-{n:04d}": k for site, k in (("AA", "A"), ("BB", "B")) for n in range(4)}
    labels |= {"other": "A", "unlabelled": ""}
    found = cohort_cautions(labels, {"RNA": ["other"]}, sites_of_barcodes(labels), by_barcode=True)
    assert [text.split(" ")[0] for text in found] == ["no", "hospital"]
    assert "another code for each study" in found[1]
    assert "unlabelled" not in "".join(found)
