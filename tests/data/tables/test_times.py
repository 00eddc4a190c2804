"""Survival times: their unit, zeros, and what is no time."""

from __future__ import annotations

import pytest
from builders.clinical_tables import OS, survival_of

from gimp_fast.data.tables.outcomes import Outcome

ZEROS = [("a", 0, 0), ("b", 5, 1), ("c", 300, 0), ("d", "0.0", 1), ("e", 0, "")]


def only_fault(folder, rows, spec=OS):
    _, (fault,) = survival_of(folder, rows, spec)
    return fault.kind, str(fault)


@pytest.mark.parametrize(
    ("time", "unit"),
    [
        ("os_days", "days"), ("OS_MONTHS", "months"), ("survival_months", "months"),
        ("Overall Survival (Months)", "months"), ("days_to_last_follow_up", "days"),
        ("os.weeks", "weeks"), ("survivalYears", "years"), ("PFI_DAYS_2", "days"),
    ],
)  # fmt: skip
def test_the_unit_is_in_the_name(tmp_path, time, unit):
    target, faults = survival_of(
        tmp_path, [("a", 30, 0), ("b", 40, 1)], f"os=survival:{time},status"
    )
    assert (target.unit, faults) == (unit, [])
    assert target.values["a"] == Outcome(30, False)


@pytest.mark.parametrize("unit", ["days", "weeks", "months", "years"])
def test_the_unit_is_an_option(tmp_path, unit):
    target, faults = survival_of(
        tmp_path, [("a", 2, 0), ("b", 9, 1)], f"os=survival:OS.time,OS:{unit}"
    )
    assert (target.unit, faults) == (unit, [])


def test_an_unknown_unit(tmp_path):
    kind, text = only_fault(tmp_path, [("a", 2, 0), ("b", 9, 1)], "os=survival:T,E:zero=drop")
    assert kind == "time-unit"
    assert (
        "column 'T': found times in a column whose name does not say their unit; expected the unit "
        "as an option: 'os=survival:T,E:days:zero=drop', 'os=survival:T,E:weeks:zero=drop', "
        "'os=survival:T,E:months:zero=drop' or 'os=survival:T,E:years:zero=drop' [time-unit]"
    ) in text
    _, text = only_fault(tmp_path, [("a", 2, 0), ("b", 9, 1)], "os=survival:OS.time,OS")
    assert "or 'os=survival:OS.time,OS:years'; TCGA's clinical data resource (TCGA-CDR)" in text
    _, text = only_fault(tmp_path, [("a", 2, 0), ("b", 9, 1)], "os=survival:days_or_months,E")
    assert "whose name says days and months" in text


def test_a_unit_that_contradicts_the_name(tmp_path):
    kind, text = only_fault(tmp_path, [("a", 2, 0), ("b", 9, 1)], f"{OS}:months")
    assert kind == "time-unit"
    assert "the option ':months' for a column whose name says days; expected the same unit" in text


@pytest.mark.parametrize(
    ("cell", "kind", "message"),
    [
        ("soon", "unreadable-file", "'soon' in column 'os_days'; expected a number, or an empty"),
        ("2015-03-02", "unreadable-file", "'2015-03-02' in column 'os_days', which looks like a "
                                          "date; expected a number; of two dates, how many days"),
        ("02.03.2015", "unreadable-file", "looks like a date"),
        ("2-Mar-15", "unreadable-file", "looks like a date"),
        ('"1,234"', "unreadable-file", "without thousands separators"),
        ("inf", "not-finite", "'inf' in column 'os_days'; expected a finite number"),
        ("-3", "negative-time", "the time '-3' of patient 'p' in column 'os_days'; expected a time "
                                "above 0"),
    ],
    ids=["text", "iso-date", "german-date", "word-date", "thousands", "infinite", "negative"],
)  # fmt: skip
def test_times_that_are_none(tmp_path, cell, kind, message):
    rows = [("a", 200, 0), ("b", 400, 1), ("p", cell, 1)]
    found, text = only_fault(tmp_path, rows)
    assert found == kind
    assert message in text
    assert text.startswith(f"{tmp_path / 'c.csv'} row 4: found ")


def test_times_of_zero_are_a_fault_with_two_ways_out(tmp_path):
    kind, text = only_fault(tmp_path, ZEROS)
    assert kind == "zero-time"
    assert text == (
        f"{tmp_path / 'c.csv'} column 'os_days': found a time of 0 for 2 patients: 'a' in row 2, "
        f"'d' in row 5; expected times above 0; '{OS}:zero=drop' leaves such patients out of this "
        f"target, '{OS}:zero=half' gives them 2.5 days, half of the smallest positive time "
        "[zero-time]"
    )


def test_many_times_of_zero_are_counted(tmp_path):
    rows = [*((f"p{n}", 0, 1) for n in range(9)), ("q", 300, 1)]
    _, text = only_fault(tmp_path, rows)
    assert "'p4' in row 6 and 4 more; expected" in text


def test_only_times_of_zero(tmp_path):
    rows = [("a", 0, 0), ("b", 0, 1)]
    for option in ("", ":zero=drop", ":zero=half"):
        _, text = only_fault(tmp_path, rows, OS + option)
        assert (
            "a time of 0 for 2 patients: 'a' in row 2, 'b' in row 3; expected times above 0 ["
            in text
        )


def test_zero_drop(tmp_path):
    target, faults = survival_of(tmp_path, ZEROS, f"{OS}:zero=drop")
    assert (target.values, faults) == ({"b": Outcome(5, True), "c": Outcome(300, False)}, [])
    assert target.notes == (
        "target 'os': 1 patient with a time and no event",
        "target 'os': 2 patients with a time of 0, which ':zero=drop' leaves out",
        "target 'os': 3 of 5 patients left out",
    )


def test_zero_half(tmp_path):
    target, faults = survival_of(tmp_path, ZEROS, f"{OS}:zero=half")
    assert faults == []
    assert {case: outcome.time for case, outcome in target.values.items()} == {
        "a": 2.5, "b": 5.0, "c": 300.0, "d": 2.5,
    }  # fmt: skip
    assert target.values["d"].event
    assert (
        "target 'os': 2 patients with a time of 0 got 2.5 days, half of the smallest positive "
        "time, as ':zero=half' says"
    ) in target.notes


@pytest.mark.parametrize(
    ("spec", "longest", "message"),
    [
        (OS, 199, "is 199 days: are these months?"),
        (OS, 18_251, "is 18251 days, which is more than 50 years: is this the unit?"),
        ("os=survival:OS_MONTHS,E", 601, "is 601 months, which is more than 50 years"),
        ("os=survival:T,E:weeks", 2601, "is 2601 weeks, which is more than 50 years"),
        ("os=survival:T,E:years", 51, "is 51 years, which is more than 50 years"),
    ],
    ids=["few-days", "days", "months", "weeks", "years"],
)
def test_implausible_times_are_cautioned_about(tmp_path, spec, longest, message):
    target, faults = survival_of(tmp_path, [("a", 1, 1), ("b", longest, 0)], spec)
    assert faults == []
    (caution,) = target.cautions
    assert message in caution


@pytest.mark.parametrize(
    ("spec", "longest"),
    [(OS, 200), (OS, 18_250), ("os=survival:OS_MONTHS,E", 600), ("os=survival:T,E:years", 1)],
    ids=["few-days", "days", "months", "years"],
)
def test_plausible_times_are_not(tmp_path, spec, longest):
    target, _ = survival_of(tmp_path, [("a", 0.5, 1), ("b", longest, 0)], spec)
    assert target.cautions == ()


@pytest.mark.parametrize(
    ("time", "kind"),
    [
        ("days_to_death", "2 patients without an event"),
        ("days_to_last_follow_up", "1 patient with"),
    ],
)
def test_gdc_has_times_in_two_columns(tmp_path, time, kind):
    dead, alive = ("88", "'--") if time == "days_to_death" else ("'--", "88")
    rows = [("a", dead, "Dead"), ("b", alive, "Alive"), ("c", alive, "Alive")]
    found, text = only_fault(tmp_path, rows, f"os=survival:{time},vital_status")
    assert found == "one-sided-times"
    assert f"no time for any of {kind}" in text
    assert "in one column, as GDC has them in two, days_to_death and days_to_last_follow_up" in text
