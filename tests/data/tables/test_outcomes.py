"""Outcomes: several targets of one table, what is left out of each, and what is refused."""

from __future__ import annotations

import pytest
from builders.clinical_tables import OS, outcomes_of, survival_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gimp_fast.data.tables.outcomes import Outcome
from gimp_fast.errors import FaultError

TABLE = (
    "case_id,slide_id,os_days,os_event,type,tmb,note\n"
    "p2,a,734.5,1,LUAD,1.5,x\n"
    "p1,b,364,0,LUSC,-2,x\n"
    "p1,c,364.0,0.0,LUSC,-2.0,x\n"
    "p3,d,12,1,,3e1,x\n"
    "p4,e,,0,LUAD,NA,x\n"
    "p5,f,99,,[Not Available],7,x\n"
)


def test_several_targets_of_one_table(tmp_path):
    (os, subtype, tmb), faults = outcomes_of(
        tmp_path, TABLE, OS, "subtype=class:type", "tmb=regression:tmb"
    )
    assert faults == []
    assert os.values == {
        "p1": Outcome(364.0, False),
        "p2": Outcome(734.5, True),
        "p3": Outcome(12.0, True),
    }
    assert (os.name, os.kind, os.columns, os.unit) == (
        "os", "survival", ("os_days", "os_event"), "days",
    )  # fmt: skip
    assert os.notes == (
        "target 'os': 1 patient with a time and no event",
        "target 'os': 1 patient with an event and no time",
        "target 'os': 2 of 5 patients left out",
    )
    assert subtype.values == {"p1": "LUSC", "p2": "LUAD", "p4": "LUAD"}
    assert subtype.notes == (
        "target 'subtype': column 'type': read as missing: '[Not Available]' in 1",
        "target 'subtype': 2 of 5 patients left out",
    )
    assert tmb.values == {"p1": -2.0, "p2": 1.5, "p3": 30.0, "p5": 7.0}
    assert (subtype.unit, tmb.unit, os.cautions) == ("", "", ())


def test_a_value_in_one_row_is_that_of_all_rows(tmp_path):
    text = "PATIENT,os_days,os_event\np,,1\np,300,\np,NA,NA\nq,5,0\n"
    (target,), faults = outcomes_of(tmp_path, text, OS)
    assert (target.values, faults) == ({"p": Outcome(300, True), "q": Outcome(5, False)}, [])
    assert target.notes == ()


@pytest.mark.parametrize(
    ("spec", "first", "second", "message"),
    [
        (OS, "9,1,A,1", "8,1,A,1", "row 5: found '8' in column 'os_days' for patient 'p'; expected "
                                   "'9' as in row 2 [value-conflict]"),
        (OS, "9,1,A,1", "9,0,A,1", "found '0' in column 'os_event' for patient 'p'; expected '1' "),
        ("x=class:type", "9,1,A,1", "9,1,a,1", "found 'a' in column 'type' for patient 'p'"),
        ("x=regression:tmb", "9,1,A,1", "9,1,A,1.01", "found '1.01' in column 'tmb' for patient "),
    ],
    ids=["time", "event", "class", "number"],
)  # fmt: skip
def test_rows_of_a_patient_that_differ(tmp_path, spec, first, second, message):
    rows = [f"p,{first}", "q,400,0,B,5", "r,400,0,A,5", f"p,{second}", f"p,{second}"]
    text = "\n".join(["case_id,os_days,os_event,type,tmb", *rows]) + "\n"
    _, (fault,) = outcomes_of(tmp_path, text, spec)
    assert message in str(fault)


def test_constant_numbers(tmp_path):
    rows = [f"p{n},{1 if n < 9 else 2}" for n in range(10)]
    text = "\n".join(["case_id,x", *rows]) + "\n"
    (target,), faults = outcomes_of(tmp_path, text, "x=regression:x")
    assert faults == []
    assert target.cautions == ("target 'x': 9 of 10 patients have the same number, 1",)
    _, (fault,) = outcomes_of(tmp_path, text.replace(",2", ",1.0"), "x=regression:x")
    expected = "column 'x': found 1 for every patient; expected numbers that differ [one-value]"
    assert str(fault).endswith(expected)


@pytest.mark.parametrize("cell", ["high", "inf", "2015-03-02"])
def test_text_is_no_number(tmp_path, cell):
    _, (fault,) = outcomes_of(tmp_path, f"case_id,x\na,1\nb,2\nc,{cell}\n", "x=regression:x")
    assert f"row 4: found '{cell}' in column 'x'" in str(fault)


def test_one_class_and_no_value(tmp_path):
    text = "case_id,type,x,os_days,os_event\na,LUAD,,1,\nb,LUAD,NA,,1\n"
    specs = ["c=class:type", "n=class:x", "r=regression:x", OS]
    _, faults = outcomes_of(tmp_path, text, *specs)
    assert [fault.kind for fault in faults] == ["one-class"] + 3 * ["no-values"]
    assert "column 'type': found only the class 'LUAD'; expected two classes or more" in str(
        faults[0]
    )
    assert "column 'x': found no patient with a value" in str(faults[1])
    assert "columns 'os_days' and 'os_event': found no patient with both values" in str(faults[3])


def test_class_names_stay_text(tmp_path):
    text = "case_id,x\na,01\nb,1\nc,1.0\nd,None\ne,null\nf,NA\ng,Unknown\n"
    (target,), faults = outcomes_of(tmp_path, text, "x=class:x")
    assert faults == []
    assert target.values == {"a": "01", "b": "1", "c": "1.0", "d": "None", "e": "null"}
    assert target.notes[0].endswith("column 'x': read as missing: 'Unknown' in 1")


def test_faults_of_all_targets_are_reported_together(tmp_path):
    text = "case_id,os_days,os_event,x\na,soon,0,high\nb,9,1,2\nc,9,1,3\n"
    specs = [OS, "pfi=survival:pfi_days,os_evnt", "x=regression:x", "os=class:x"]
    outcomes, faults = outcomes_of(tmp_path, text, *specs)
    assert [fault.kind for fault in faults] == [
        "duplicate-target", "missing-column", "missing-column", "unreadable-file",
        "unreadable-file",
    ]  # fmt: skip
    assert "found 2 targets called 'os'" in str(faults[0])
    assert "expected os_evnt; did you mean 'os_event'?" in str(faults[2])
    assert [target.name for target in outcomes] == ["os", "x", "os"]
    assert len(str(FaultError(faults))) < 1500


def test_a_message_lists_the_first_faults_of_a_kind(tmp_path):
    rows = [(f"p{n}", -n, 1) for n in range(1, 31)]
    _, faults = survival_of(tmp_path, rows)
    assert len(faults) == 30
    assert "… and 25 more [negative-time]" in str(FaultError(faults))


SETTINGS = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@SETTINGS
@given(order=st.permutations(range(6)))
def test_the_order_of_the_rows_changes_nothing(tmp_path, order):
    header, *rows = TABLE.splitlines(keepends=True)
    specs = [OS, "subtype=class:type", "tmb=regression:tmb"]
    expected, _ = outcomes_of(tmp_path, TABLE, *specs)
    shuffled, faults = outcomes_of(tmp_path, header + "".join(rows[n] for n in order), *specs)
    assert (shuffled, faults) == (expected, [])
    assert [list(target.values) for target in shuffled] == [
        list(target.values) for target in expected
    ]


CELLS = st.one_of(
    st.sampled_from(
        ["0", "1", "-1", "2", "1e999", "NaN", "dead", "Alive", "0:x", "[Unknown]", ";"]
    ),
    st.text(st.characters(exclude_characters='",\r\n\0', exclude_categories=["Cs"]), max_size=6),
)


@SETTINGS
@given(cells=st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=5))
def test_any_cells_give_values_or_faults(tmp_path, cells):
    rows = "".join(f"{case},{time},{event}\n" for case, time, event in cells)
    outcomes, faults = outcomes_of(
        tmp_path,
        f"case_id,os_days,os_event\n{rows}",
        OS,
        "t=class:os_days",
        "r=regression:os_event",
    )
    assert len(outcomes) == 3 or faults
    assert all(fault.kind and fault.found and fault.expected for fault in faults)
