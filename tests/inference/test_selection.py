"""Which patients are predicted or drawn: by id, by file, by slide, by part of a split."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gimp_fast.errors import FaultError, GimpError
from gimp_fast.inference import load
from gimp_fast.inference.selection import chosen_cases, read_case_list, select_patients


def test_choosing_patients(cohort, tmp_path):
    split = cohort.split("split_0")
    assert chosen_cases(cohort) == list(cohort.case_ids)
    assert chosen_cases(cohort, part="test") == split["test"]
    assert chosen_cases(cohort, split="split_0") == split["train"] + split["val"] + split["test"]
    file = tmp_path / "ids.txt"
    file.write_text("\n".join(split["val"]) + "\n\n", encoding="utf-8")
    first = cohort.case_ids[0]
    expected = list(dict.fromkeys([first, *split["val"]]))
    assert chosen_cases(cohort, [first, str(file), first]) == expected


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"cases": ["x"], "part": "test"}, "not by both"),
        ({"part": "exam"}, "found 'exam'"),
        ({"split": "nothing"}, "no split 'nothing'"),
        ({"cases": ["x"]}, "found no patient x"),
    ],
)
def test_impossible_choices(cohort, choice, message):
    with pytest.raises(GimpError, match=message):
        chosen_cases(cohort, **choice)


IDS = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), min_size=1, max_size=6)


@given(st.lists(IDS.filter(lambda id: not set(id) & set(',;\t"')), min_size=1))
def test_a_list_of_ids_is_read_as_it_is(tmp_path_factory, ids):
    file = tmp_path_factory.mktemp("ids") / "ids.txt"
    file.write_text("\n".join(ids), encoding="utf-8")
    expected = ids[1:] if ids[0] in ("case_id", "PATIENT") else ids
    assert read_case_list(file) == expected


@given(st.binary(max_size=60))
def test_any_file_is_a_list_or_a_clear_fault(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("ids") / "ids.csv"
    file.write_bytes(content)
    message = str(file)
    try:
        ids = read_case_list(file)
    except FaultError as error:
        ids, message = [], str(error)
    assert all(ids)
    assert str(file) in message


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"cases": ["nobody"]}, "found no patient nobody"),
        ({"slides": ["none"]}, "found no slide none"),
        ({"part": "test", "split": "absent"}, "no split 'absent'"),
    ],
)
def test_unknown_names_are_refused(gimp_run, cohort, asked, message):
    with pytest.raises(GimpError, match=message):
        select_patients(load(gimp_run), cohort, **asked)


def test_patients_are_chosen_by_part_and_by_slide(gimp_run, cohort):
    trained = load(gimp_run)
    split = cohort.split(cohort.split_names[0])
    assert select_patients(trained, cohort) == split["test"]
    assert select_patients(trained, cohort, part="all") == list(cohort.case_ids)
    slide = cohort.bag(cohort.case_ids[3]).slide_ids[0]
    assert select_patients(trained, cohort, slides=[slide]) == [cohort.case_ids[3]]
