"""Clinical tables of other tools and of real patients, and tables that cannot be read."""

from __future__ import annotations

import pytest
from builders.clinical_tables import OS, outcomes_of

from gimp_fast.data.tables.clinical import open_clinical
from gimp_fast.data.tables.outcomes import Outcome, TargetSpec, read_outcomes


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("", 3 * ["missing-column"]),
        ("case_id,os_days,os_event\n", ["no-rows"]),
        ("id,os_days,os_event\na,1,1\n", ["missing-column"]),
        ("case_id,os_days,os_event,os_days\na,1,1,1\n", ["duplicate-column"]),
        ("case_id,os_days,os_event\na,300,0\nb,200,1,7\n", ["row-length"]),
        ("case_id,os_days,os_event\na,300,1\n,200,0\nb,9,0\n", ["missing-id"]),
        ('case_id,os_days,os_event\na,300,1\n"b\nc",200,0\nb,9,0\n', ["bad-id"]),
    ],
    ids=["empty", "no-rows", "no-case", "twice", "long-row", "blank-case", "line-break"],
)
def test_tables_that_cannot_be_read(tmp_path, text, kinds):
    _, faults = outcomes_of(tmp_path, text, OS)
    assert [fault.kind for fault in faults] == kinds


def test_mcat_table(tmp_path):
    text = (
        ",case_id,slide_id,age,survival_months,censorship\n"
        "0,TCGA-05-4244,TCGA-05-4244-01Z.svs,70.0,12.4,1.0\n"
        "1,TCGA-18-3406,TCGA-18-3406-01Z.svs,51.0,0.07,0.0\n"
    )
    spec = "os=survival:survival_months,censorship"
    _, (fault,) = outcomes_of(tmp_path, text, spec)
    assert fault.kind == "event-coding"
    (target,), faults = outcomes_of(tmp_path, text, f"{spec}:censorship")
    assert (target.unit, faults) == ("months", [])
    assert target.values["TCGA-18-3406"] == Outcome(0.07, True)
    assert target.values["TCGA-05-4244"] == Outcome(12.4, False)


CBIOPORTAL = (
    "#Patient Identifier\tOverall Survival Status\tOverall Survival (Months)\n"
    "#Identifier of a patient\tStatus\tMonths since diagnosis\n"
    "#STRING\tSTRING\tNUMBER\n"
    "#1\t1\t1\n"
    "PATIENT_ID\tOS_STATUS\tOS_MONTHS\n"
    "TCGA-05-4244\t0:LIVING\t0.23\n"
    "TCGA-18-3406\t1:DECEASED\t12.19\n"
    "TCGA-18-3407\t\t\n"
)


def test_cbioportal_table_with_its_comments(tmp_path):
    (target,), faults = outcomes_of(tmp_path, CBIOPORTAL, "os=survival:OS_MONTHS,OS_STATUS")
    assert faults == []
    assert target.values == {
        "TCGA-05-4244": Outcome(0.23, False),
        "TCGA-18-3406": Outcome(12.19, True),
    }


def test_a_first_column_called_number_is_no_comment(tmp_path):
    text = "#,case_id,os_days,os_event\n1,p,300,1\n2,q,5,0\n"
    (target,), faults = outcomes_of(tmp_path, text, OS)
    assert (list(target.values), faults) == (["p", "q"], [])


def test_a_table_of_comments_only(tmp_path):
    outcomes, (fault, _, _) = outcomes_of(tmp_path, "#a\tb\n#c\td\n", OS)
    assert outcomes == ()
    assert "no column os_days among #a, b" in str(fault)


def test_stamp_table(tmp_path):
    text = "PATIENT,day,status,SEX\n01,300,dead,m\n007,41,alive,f\n"
    (target,), faults = outcomes_of(tmp_path, text, "os=survival:day,status:days")
    assert faults == []
    assert target.values == {"007": Outcome(41, False), "01": Outcome(300, True)}


def test_tcga_cdr_table(tmp_path):
    text = (
        "\tbcr_patient_barcode\ttype\tvital_status\tOS\tOS.time\n"
        "1\tTCGA-OR-A5J1\tACC\tDead\t1\t1355\n"
        "2\tTCGA-OR-A5J2\tACC\tAlive\t0\t1677\n"
        "3\tTCGA-OR-A5J3\tACC\t[Discrepancy]\t#N/A\t#N/A\n"
    )
    for event in ("OS", "vital_status"):
        (target,), faults = outcomes_of(tmp_path, text, f"os=survival:OS.time,{event}:days")
        assert faults == []
        assert target.values == {
            "TCGA-OR-A5J1": Outcome(1355, True),
            "TCGA-OR-A5J2": Outcome(1677, False),
        }


def test_decimal_commas_of_a_table_with_semicolons(tmp_path):
    text = "PATIENT;OS_MONTHS;event\n01;12,5;1\n02;7;0\n"
    (target,), faults = outcomes_of(tmp_path, text, "os=survival:OS_MONTHS,event")
    assert (target.values, faults) == ({"01": Outcome(12.5, True), "02": Outcome(7, False)}, [])
    _, (fault,) = outcomes_of(
        tmp_path, text.replace("12,5", "1,250"), "os=survival:OS_MONTHS,event"
    )
    assert "each comma may separate thousands" in str(fault)


# Cohort -> patients, deaths, patients with a known cause of death, deaths of it, progressions,
# and the sum of the days.
REAL = {
    "blca": (371, 169, 358, 113, 159, 297_710),
    "brca": (897, 128, 879, 65, 119, 1_178_555),
    "coadread": (316, 77, 296, 36, 88, 298_534),
    "gbmlgg": (492, 157, 480, 140, 208, 405_988),
    "hnsc": (401, 189, 382, 113, 166, 379_275),
    "luad": (338, 124, 311, 79, 139, 310_537),
}


@pytest.mark.parametrize("cohort", REAL)
def test_real_patients(real_data, cohort):
    file = real_data / "survival" / f"tcga_{cohort}" / "clinical.csv"
    specs = [OS, "dss=survival:os_days,dss_event", "pfi=survival:pfi_days,pfi_event:zero=half"]
    outcomes = read_outcomes(open_clinical(file), [TargetSpec.parse(spec) for spec in specs])
    assert outcomes.faults == ()
    os, dss, pfi = outcomes.value
    found = [len(os.values), sum(outcome.event for outcome in os.values.values())]
    found += [len(dss.values), sum(outcome.event for outcome in dss.values.values())]
    found += [sum(outcome.event for outcome in pfi.values.values())]
    found += [sum(outcome.time for outcome in os.values.values())]
    assert tuple(found) == REAL[cohort]
    assert {target.unit for target in outcomes.value} == {"days"}
    assert [target.cautions for target in outcomes.value] == [(), (), ()]


def test_real_times_of_zero(real_data):
    file = real_data / "survival" / "tcga_coadread" / "clinical.csv"
    spec = TargetSpec.parse("pfi=survival:pfi_days,pfi_event")
    (fault,) = read_outcomes(open_clinical(file), [spec]).faults
    assert "a time of 0 for 2 patients: 'TCGA-" in fault.found
    assert "gives them 3 days" in fault.expected
