"""Covariates: numbers or categories by their values alone, and what neither can be."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gimp_fast.data.tables.clinical import open_clinical
from gimp_fast.data.tables.covariates import read_covariates
from gimp_fast.data.tables.outcomes import TargetSpec

TABLE = (
    "case_id,slide_id,age,sex,stage,site\n"
    "p2,a,63,MALE,Stage IIIA,05\n"
    "p1,b,41.5,female,Stage I,12\n"
    "p1,c,41.50,FEMALE,,12\n"
    "p3,d,,Female,[Discrepancy],44\n"
    "p4,e,>89,FEMALE,Stage IV,\n"
)


def read(folder, text, *names, targets=()):
    """Covariates and faults of a table with this text."""
    (folder / "c.csv").write_text(text, encoding="utf-8")
    covariates = read_covariates(open_clinical(folder / "c.csv"), names, targets)
    return covariates.value, list(covariates.faults)


def column(folder, cells, name="x"):
    """The covariate of a table with these cells, with its notes and cautions; and the faults."""
    option_free = name.partition(":")[0]
    rows = "".join(f"p{n:02d},{cell}\n" for n, cell in enumerate(cells))
    covariates, faults = read(folder, f"case_id,{option_free}\n{rows}", name)
    return covariates, faults


def test_numbers_categories_and_missing_values(tmp_path):
    covariates, faults = read(tmp_path, TABLE, "age", "sex", "stage")
    assert faults == []
    age, sex, stage = covariates.columns
    assert (age.name, age.kind, age.levels) == ("age", "numeric", ())
    assert age.values == {"p1": 41.5, "p2": 63.0, "p3": None, "p4": 89.0}
    assert (sex.kind, sex.levels) == ("categorical", ("FEMALE", "MALE"))
    assert sex.values == {"p1": "FEMALE", "p2": "MALE", "p3": "FEMALE", "p4": "FEMALE"}
    assert stage.levels == ("Stage I", "Stage IIIA", "Stage IV")
    assert stage.values == {"p1": "Stage I", "p2": "Stage IIIA", "p3": None, "p4": "Stage IV"}
    assert covariates.notes == (
        "covariate 'age': '>89' read as the number itself (1 cell)",
        "covariate 'sex': spellings that differ in case are one level: 'FEMALE'",
        "column 'stage': read as missing: '[Discrepancy]' in 1",
    )
    assert covariates.cautions == ()


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "0", "1.0"], [1, 0, 1]),
        (["-1e3", ".5", "NA"], [-1000, 0.5, None]),
        (["50", "null", "."], [50, None, None]),
        (["> 89", ">=90", "12"], [89, 90, 12]),
        (["0", "0.5"], [0, 0.5]),
    ],
    ids=["two-values", "signs", "null", "caps", "fractions"],
)
def test_numeric_columns(tmp_path, cells, values):
    covariates, faults = column(tmp_path, cells)
    (covariate,) = covariates.columns
    assert faults == []
    assert covariate.kind == "numeric"
    assert list(covariate.values.values()) == values


@pytest.mark.parametrize(
    ("cells", "levels"),
    [
        (["05", "12", "12"], ("05", "12")),
        (["true", "False"], ("False", "true")),
        (["None", "current", "former"], ("current", "former", "None")),
        (["Gleason 7", "gleason 7", "gleason 7", "6"], ("6", "gleason 7")),
        (["b", "B", "a"], ("a", "B")),
        (["<5", "ü"], ("<5", "ü")),
        (["a  b", "a b"], ("a  b", "a b")),
    ],
    ids=["codes", "logical", "none", "commonest", "tie", "below", "inner-blanks"],
)
def test_categorical_columns(tmp_path, cells, levels):
    covariates, faults = column(tmp_path, cells)
    (covariate,) = covariates.columns
    assert faults == []
    assert (covariate.kind, covariate.levels) == ("categorical", levels)
    assert set(covariate.values.values()) == set(levels)


def test_text_among_numbers_is_cautioned_about(tmp_path):
    covariates, faults = column(tmp_path, ["1", "2", "3", "X"])
    assert (covariates.columns[0].levels, faults) == (("1", "2", "3", "X"), [])
    assert covariates.cautions == (
        "covariate 'x' is read as categories because of 'X'; all other values are numbers",
    )
    covariates, _ = column(tmp_path, ["1", "2", "X", "Y"])
    assert covariates.cautions == ()


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([f"id{n}" for n in range(10, 31)], "found 21 different values: 'id10', 'id11', 'id12', "
         "'id13', 'id14' and 16 more; expected numbers only, or at most 20 categories; ids and "
         "free text are neither [too-many-levels]"),
        ([*range(40, 65), "old", "n.k."], "27 different values, all numbers but 'n.k.', 'old'; "),
        ([f"{n:02d}" for n in range(25)], "25 different values: '00', '01', '02', '03', '04' and "),
        ([f"2015-03-{n}" for n in range(10, 31)], "21 different values: '2015-03-10'"),
    ],
    ids=["ids", "text-among-numbers", "codes", "dates"],
)  # fmt: skip
def test_too_many_levels(tmp_path, cells, message):
    _, (fault,) = column(tmp_path, cells)
    assert fault.where == f"{tmp_path / 'c.csv'} column 'x'"
    assert message in str(fault)


def test_twenty_levels_are_not_too_many(tmp_path):
    covariates, faults = column(tmp_path, [f"level {n}" for n in range(20)])
    assert (len(covariates.columns[0].levels), faults) == (20, [])


@pytest.mark.parametrize("cells", [["", "NA"], ["[Not Available]", "'--"], ["null", "."], [""]],
                         ids=["blank", "words", "null", "one"])  # fmt: skip
def test_no_value_is_a_fault(tmp_path, cells):
    covariates, (fault,) = column(tmp_path, cells)
    assert str(fault).endswith("column 'x': found no value; expected a value of some patients "
                               "[no-values]")  # fmt: skip
    assert set(covariates.columns[0].values.values()) == {None}


@pytest.mark.parametrize(
    ("cells", "shown"), [(["LUAD", "luad", "LUAD"], "'LUAD'"), (["7", "7.0"], "7")]
)
def test_one_value_is_cautioned_about(tmp_path, cells, shown):
    covariates, faults = column(tmp_path, cells)
    assert faults == []
    assert covariates.cautions == (f"covariate 'x' tells nothing: its only value is {shown}",)


STAGES = {
    "Stage IIIA": "III", "IIIA": "III", "stage iiib": "III", "Stage I": "I", "IA3": "I",
    "Stage IIA2": "II", "Stage IVC": "IV", "IV": "IV", "Stage 0": "0", "Stage 0is": "0",
    "STAGE_II": "II", "Stage IS": "I", "IIIC1": "III",
}  # fmt: skip


@pytest.mark.parametrize("text", STAGES)
def test_substages_become_major_stages_on_request(tmp_path, text):
    covariates, faults = column(tmp_path, [text, "Stage IIB"], "stage:major")
    (stage,) = covariates.columns
    assert faults == []
    assert (stage.name, stage.kind) == ("stage", "categorical")
    assert stage.values == {"p00": STAGES[text], "p01": "II"}
    assert covariates.notes == ()
    covariates, _ = column(tmp_path, [text, "Stage IIB"], "stage")
    assert covariates.columns[0].values["p00"] == text


def test_other_stages_are_kept_and_noted(tmp_path):
    cells = ["Stage IIIA", "Stage X", "I/II NOS", "[Not Available]", "IIII", "Stage V"]
    covariates, faults = column(tmp_path, cells, "stage:major")
    assert faults == []
    assert covariates.columns[0].levels == ("I/II NOS", "III", "IIII", "Stage V", "Stage X")
    assert covariates.notes[1] == (
        "covariate 'stage': no stages of AJCC, kept as they are: 'I/II NOS', 'IIII', 'Stage V', "
        "'Stage X'"
    )


@pytest.mark.parametrize("cells", [["MALE", "FEMALE"], ["3", "4"]], ids=["words", "numbers"])
def test_no_stage_at_all_is_a_fault(tmp_path, cells):
    _, (fault,) = column(tmp_path, cells, "sex:major")
    assert fault.kind == "no-stages"
    assert "expected stages of AJCC such as 'Stage IIIA' or 'IIIA'" in str(fault)


@pytest.mark.parametrize(
    ("names", "kind", "message"),
    [
        (["stage:mayor"], "covariate-option", "the option ':mayor' of the covariate 'stage'; "
                                              "expected major; did you mean 'major'?"),
        (["age:"], "covariate-option", "the option ':' of the covariate 'age'"),
        (["gender"], "missing-column", "no column gender among case_id, slide_id, age, sex"),
        (["ages"], "missing-column", "did you mean 'age'?"),
        (["age", "age"], "duplicate-covariate", "the covariate 'age' 2 times; expected each once"),
        (["stage", "stage:major"], "duplicate-covariate", "the covariate 'stage' 2 times"),
    ],
    ids=["option", "blank-option", "column", "near-column", "twice", "twice-with-option"],
)  # fmt: skip
def test_names_that_cannot_be_read(tmp_path, names, kind, message):
    _, (fault,) = read(tmp_path, TABLE, *names)
    assert fault.kind == kind
    assert message in str(fault)


def test_a_column_whose_name_has_a_colon(tmp_path):
    covariates, faults = read(tmp_path, "case_id,a:b\np,1\nq,2\n", "a:b")
    assert (covariates.columns[0].values, faults) == ({"p": 1.0, "q": 2.0}, [])


@pytest.mark.parametrize(
    ("first", "second"), [("63", "64"), ("MALE", "FEMALE"), ("Stage IIIA", "Stage III")]
)
def test_rows_of_a_patient_that_differ(tmp_path, first, second):
    text = f"case_id,x\np,{first}\nq,\np,{second}\np,{second}\n"
    _, (fault,) = read(tmp_path, text, "x")
    assert str(fault) == (
        f"{tmp_path / 'c.csv'} row 4: found '{second}' in column 'x' for patient 'p'; expected "
        f"'{first}' as in row 2 [value-conflict]"
    )


LEAKS = ["os_days", "OS", "OS.time", "pfi_event", "vital_status", "days_to_death", "DSS_STATUS",
         "days_to_last_follow_up", "survival_months", "censorship", "Overall Survival Status",
         "event", "tumor_recurrence"]  # fmt: skip


@pytest.mark.parametrize("name", LEAKS)
def test_names_of_outcomes_are_cautioned_about(tmp_path, name):
    covariates, faults = column(tmp_path, ["1", "2"], name)
    assert faults == []
    assert covariates.cautions == (
        f"covariate '{name}' may give the outcome away: its name is that of an outcome",
    )


@pytest.mark.parametrize("name", ["age", "msi_status", "osteopontin", "progesterone", "position"])
def test_other_names_are_not(tmp_path, name):
    covariates, _ = column(tmp_path, ["1", "2"], name)
    assert covariates.cautions == ()


def test_columns_of_targets_are_cautioned_about(tmp_path):
    targets = [TargetSpec.parse("subtype=class:sex"), TargetSpec.parse("f=class:sex")]
    covariates, faults = read(tmp_path, TABLE, "age", "sex", targets=targets)
    assert faults == []
    assert covariates.cautions == (
        "covariate 'sex' may give the outcome away: it is a column of the target 'subtype', 'f'",
    )


def test_decimal_commas_of_a_table_with_semicolons(tmp_path):
    text = "PATIENT;bmi;histology\n01;22,5;Carcinoma, NOS\n02;31;Other, specify\n"
    covariates, faults = read(tmp_path, text, "bmi", "histology")
    bmi, histology = covariates.columns
    assert (bmi.values, faults) == ({"01": 22.5, "02": 31.0}, [])
    assert histology.levels == ("Carcinoma, NOS", "Other, specify")


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(order=st.permutations(range(5)))
def test_the_order_of_the_rows_changes_nothing(tmp_path, order):
    header, *rows = TABLE.splitlines(keepends=True)
    names = ["age", "sex", "stage:major", "site"]
    expected, _ = read(tmp_path, TABLE, *names)
    shuffled, faults = read(tmp_path, header + "".join(rows[n] for n in order), *names)
    assert (shuffled, faults) == (expected, [])


# Cohort -> patients with an age, and of stages I, II, III and IV.
REAL = {
    "blca": (371, 2, 115, 129, 123), "brca": (897, 150, 515, 193, 18),
    "coadread": (316, 47, 107, 103, 42), "hnsc": (401, 20, 60, 68, 212),
    "luad": (328, 182, 90, 45, 15),
}  # fmt: skip


def real_covariates(real_data, cohort, *names):
    file = real_data / "survival" / f"tcga_{cohort}" / "clinical.csv"
    return read_covariates(open_clinical(file), names)


@pytest.mark.parametrize("cohort", REAL)
def test_real_patients(real_data, cohort):
    covariates = real_covariates(real_data, cohort, "age", "sex", "stage:major")
    assert covariates.faults == ()
    age, sex, stage = covariates.value.columns
    found = list(stage.values.values())
    counts = [found.count(level) for level in ("I", "II", "III", "IV")]
    assert (sum(value is not None for value in age.values.values()), *counts) == REAL[cohort]
    assert (age.kind, sex.levels) == ("numeric", ("FEMALE", "MALE"))
    assert covariates.value.cautions == ()


def test_real_gliomas(real_data):
    covariates = real_covariates(real_data, "gbmlgg", "age", "sex", "grade", "histology", "type")
    assert covariates.faults == ()
    assert [len(column.levels) for column in covariates.value.columns] == [0, 2, 2, 4, 2]
    assert list(covariates.value.columns[2].values.values()).count(None) == 77


def test_real_columns_that_are_no_covariates(real_data):
    covariates = real_covariates(real_data, "gbmlgg", "stage", "site", "slide_id")
    assert [fault.kind for fault in covariates.faults[:2]] == ["no-values", "too-many-levels"]
    assert "found 34 different values: '02', '06'" in str(covariates.faults[1])
    assert {fault.kind for fault in covariates.faults[2:]} == {"too-many-levels", "value-conflict"}
