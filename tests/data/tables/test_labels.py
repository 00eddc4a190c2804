"""Labels: every project's layout gives the same rows, ids stay text, and faults name their row."""

from __future__ import annotations

from pathlib import Path

import pytest

from gimp_fast.data.names import patient_of
from gimp_fast.data.tables.labels import read_cases, read_labels

A, B = "TCGA-05-4244-01Z-00-DX1.d4ff32cd", "TCGA-18-3406-01Z-00-DX1.8D07F006"
MCAT = (
    ",case_id,slide_id,age,site,is_female,oncotree_code,train\n"
    f"0,TCGA-05-4244,{A}.svs,70.0,05,1.0,LUAD,1.0\n"
    f"1,TCGA-18-3406,{B}.svs,51.0,18,0.0,LUSC,1.0\n"
)
FOLD = ",train,train_label,val,val_label,test,test_label\n"


def write(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file


def found(rows) -> list[tuple[str, str, str]]:
    return [(row.case_id, row.slide_id, row.label) for row in rows]


def read(*args, **options):
    """Rows and faults."""
    labels = read_labels(*args, **options)
    return labels.value, list(labels.faults)


def only_fault(*args, **options) -> tuple[str, str]:
    """Kind and text of the fault of a table without rows."""
    rows, (fault,) = read(*args, **options)
    assert rows == []
    return fault.kind, str(fault)


def test_zero_padded_ids_and_slide_endings(tmp_path):
    text = "\ufeffcase_id,slide_id,label\n007, 0010.svs ,A\n07,010,B\n08,x.y.h5,NA\n"
    rows, faults = read(write(tmp_path / "l.csv", text))
    assert faults == []
    assert found(rows) == [("007", "0010", "A"), ("07", "010", "B"), ("08", "x.y", "")]


@pytest.mark.parametrize("name", ["l.csv", "l.tsv", "l.txt"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
def test_delimiters_and_line_ends(tmp_path, name, delimiter, newline):
    lines = ['"case_id",slide_id,label', "007,s1,A", "", '008,"s2",B']
    text = newline.join(lines).replace(",", delimiter) + newline
    (tmp_path / name).write_bytes(text.encode())
    rows, faults = read(tmp_path / name)
    assert (found(rows), faults) == ([("007", "s1", "A"), ("008", "s2", "B")], [])
    assert rows[1].where == f"{tmp_path / name} row 4"


def test_mcat_label_of_another_name(tmp_path):
    rows, faults = read(write(tmp_path / "m.csv", MCAT), label_column="oncotree_code")
    assert (found(rows), faults) == ([("TCGA-05-4244", A, "LUAD"), ("TCGA-18-3406", B, "LUSC")], [])
    rows, _ = read(tmp_path / "m.csv", label_column="is_female")
    assert [row.label for row in rows] == ["1.0", "0.0"]


def test_patients_of_cbioportal_have_lines_above_the_header(tmp_path):
    table = write(
        tmp_path / "data_clinical_patient.txt",
        "#Patient Identifier\tSubtype\n#Id of a patient\tMolecular subtype\n#STRING\tSTRING\n"
        "#1\t1\nPATIENT_ID\tSUBTYPE\nTCGA-05-4244\tLUAD\nTCGA-18-3406\tLUSC\n",
    )
    slides = write(tmp_path / "s.csv", f"PATIENT,FILENAME\nTCGA-05-4244,{A}\nTCGA-18-3406,{B}\n")
    rows, faults = read(table, label_column="SUBTYPE", slide_table=slides)
    assert faults == []
    assert found(rows) == [("TCGA-05-4244", A, "LUAD"), ("TCGA-18-3406", B, "LUSC")]


def test_a_missing_label_column_lists_those_there_are(tmp_path):
    _, message = only_fault(write(tmp_path / "m.csv", MCAT))
    assert "no column label among case_id, slide_id, age, site" in message
    wide = "case_id,slide_id," + ",".join(f"G{n}_rnaseq" for n in range(20_000)) + "\na,s\n"
    _, message = only_fault(write(tmp_path / "wide.csv", wide))
    assert "G27_rnaseq, and 19972 more; expected" in message
    assert len(message) < 1000


def stamp(folder: Path, clini: str, slides: str):
    write(folder / "clini.csv", clini)
    return read(
        folder / "clini.csv",
        label_column="isMSIH",
        slide_table=write(folder / "slides.csv", slides),
    )


def test_stamp_joins_clini_and_slide_tables(tmp_path):
    clini = "PATIENT,AGE,isMSIH\n01,50,yes\n02,60,no\n03,70,no\n04,80,\n"
    slides = "FILENAME,PATIENT\na/x.1.h5,01\nb\\y,01\nz.h5,02\nw.h5,09\nv.h5,04\n"
    rows, faults = stamp(tmp_path, clini, slides)
    assert faults == []
    assert found(rows) == [
        ("01", "x.1", "yes"),
        ("01", "y", "yes"),
        ("02", "z", "no"),
        ("09", "w", ""),  # no clini row
        ("04", "v", ""),
        ("03", "", "no"),  # no slide
    ]
    assert rows[3].where == f"{tmp_path / 'slides.csv'} row 5"
    assert rows[5].where == f"{tmp_path / 'clini.csv'} row 4"


@pytest.mark.parametrize(
    ("clini", "slides", "kinds"),
    [
        ("PATIENT,isMSIH\n1,y\n1,y\n", "PATIENT,FILENAME\n1,a\n", ["duplicate-patient"]),
        ("PATIENT,isMSIH\n1,y\n1,n\n", "PATIENT,FILENAME\n1,a\n", ["label-conflict"]),
        ("PATIENT,isMSIH\n1,y\n", "PATIENT,FILENAME\n1,x/a.h5\n1,a\n", ["duplicate-slide"]),
        ("PATIENT,isMSIH\n1,y\n", "PATIENT,FILENAME\n1,a\n2,a\n", ["duplicate-slide"]),
        ("PATIENT,isMSIH\n1,y\n", "PATIENT,FILENAME\n1,\n1,dir/\n,b\n", ["missing-id"] * 3),
        ("PATIENT,isMSIH\n,y\n1,n\n", "PATIENT,FILENAME\n1,a\n", ["missing-id"]),
        ("PATIENT,isMSIH\n", "PATIENT,FILENAME\n", ["no-rows"]),
    ],
    ids=["twice", "conflict", "slide", "two-owners", "blank-slides", "blank-patient", "empty"],
)
def test_bad_stamp_tables(tmp_path, clini, slides, kinds):
    _, faults = stamp(tmp_path, clini, slides)
    assert [fault.kind for fault in faults] == kinds


@pytest.mark.parametrize(
    ("clini", "slides", "kind"),
    [
        ("PATIENT,label\n1,y\n", "PATIENT,FILENAME\n1,a\n", "missing-column"),
        ("ID,isMSIH\n1,y\n", "PATIENT,FILENAME\n1,a\n", "missing-column"),
        ("PATIENT,isMSIH\n1,y\n", "PATIENT,FILE\n1,a\n", "missing-column"),
        ("case_id,slide_id,isMSIH\n1,s,y\n", "PATIENT,FILENAME\n1,a\n", "label-layout"),
        (FOLD + "0,a,0,b,0,c,0\n", "PATIENT,FILENAME\n1,a\n", "missing-column"),
    ],
)
def test_tables_that_are_not_stamps(tmp_path, clini, slides, kind):
    _, faults = stamp(tmp_path, clini, slides)
    assert [fault.kind for fault in faults] == [kind]


def test_transmil_folds(tmp_path):
    write(tmp_path / "fold0.csv", f"{FOLD}0,normal_1,0,{A},1.0,007,1.0\n1,tumor_2,1,,,,\n")
    write(tmp_path / "fold1.csv", f"{FOLD}0,{A}.svs,1,tumor_2,1,normal_1,0\n1,{B},0,,,,\n")
    rows, faults = read(tmp_path / "fold0.csv")
    expected = [
        ("normal_1", "normal_1", "0"),
        ("tumor_2", "tumor_2", "1"),
        ("TCGA-05-4244", A, "1"),
        ("007", "007", "1"),
    ]
    assert (found(rows), faults) == (expected, [])
    assert rows[2].where == f"{tmp_path / 'fold0.csv'} row 2 [val]"
    rows, faults = read(tmp_path)
    assert (found(rows), faults) == ([*expected, ("TCGA-18-3406", B, "0")], [])


@pytest.mark.parametrize(
    ("first", "second", "kinds"),
    [
        ("0,a,0,b,1.0,c,1.0\n", "0,a,1,b,1,c,1\n", ["label-conflict"]),
        ("0,a,0,a,0,c,1.0\n", "0,a,0,b,1,c,1\n", ["duplicate-slide"]),
        ("0,a,0,,1.0,c,1.0\n", "0,a,0,b,1,c,1\n", ["missing-id"]),
        ("0,a,0,b,,c,1.0\n", "0,a,0,b,1,c,1\n", []),
        (f"0,{A},0,b,1,c,1\n", f"0,{A[:12]}-x,1,b,1,c,1\n", ["label-conflict"]),
    ],
    ids=["folds-disagree", "twice-in-a-fold", "label-only", "one-fold-knows", "patient"],
)
def test_transmil_folds_must_agree(tmp_path, first, second, kinds):
    write(tmp_path / "fold0.csv", FOLD + first)
    write(tmp_path / "fold1.csv", FOLD + second)
    rows, faults = read(tmp_path)
    assert [fault.kind for fault in faults] == kinds
    assert ("b", "b", "1") in found(rows)


@pytest.mark.parametrize(
    ("files", "arguments", "kind"),
    [
        ({}, {}, "missing-file"),
        ({"a.csv": ",train,val,test\n0,a,b,c\n"}, {}, "missing-column"),
        ({"a.csv": ",train,train_label,test\n0,a,1,b\n"}, {}, "missing-column"),
        ({"a.csv": FOLD}, {"slide_table": "a.csv"}, "label-layout"),
        ({"a.csv": FOLD}, {"label_column": "x"}, "label-layout"),
    ],
    ids=["empty", "no-labels", "half-labelled", "slide-table", "label-column"],
)
def test_folders_without_folds(tmp_path, files, arguments, kind):
    for name, text in files.items():
        write(tmp_path / name, text)
    assert only_fault(tmp_path, **arguments)[0] == kind


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("case_id,slide_id,label\na,s,A\na,s.svs,A\n", ["duplicate-slide"]),
        ("case_id,slide_id,label\na,s,A\na,t,B\n", ["label-conflict"]),
        ("case_id,slide_id,label\n,s,A\n", ["missing-id"]),
        ("case_id,slide_id,label\na,.svs,A\n", ["missing-id"]),
        ('case_id,slide_id,label\na,"s\nt",A\n', ["bad-id"]),
        ("case_id,slide_id,label\na\u200b,s,A\n", ["bad-id"]),
        ("case_id,slide_id,label\n", ["no-rows"]),
        ("case_id,slide_id,label\n,s,A\na,t,A\na,t,A\na,u,B\n",
         ["missing-id", "duplicate-slide", "label-conflict"]),
    ],
    ids=["duplicate", "conflict", "no-id", "no-stem", "line-break", "invisible", "no-rows",
         "three-at-once"],
)  # fmt: skip
def test_bad_labels(tmp_path, text, kinds):
    _, faults = read(write(tmp_path / "l.csv", text))
    assert [fault.kind for fault in faults] == kinds


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (b"who,slide_id,label\na,b,A\n", "missing-column", "no column case_id"),
        (b"", "missing-column", "among none"),
        (b"case_id,slide_id,label\na,b,c,d\n", "row-length", "row 2: found 4 cells; expected 3"),
        (b"case_id,slide_id,label,label\na,b,c,d\n", "duplicate-column", "2 columns 'label'"),
        (b'case_id,slide_id,label\na,"b,c\nd,e,f\n', "unreadable-file", "row 2"),
        (None, "missing-file", "no such file"),
        ("case_id,slide_id,label\na,b,ü\n".encode("latin-1"), "encoding", "byte 0xfc at position"),
        ("case_id,slide_id,label\na,b,c\n".encode("utf-16-be"), "encoding", "UTF-16"),
        ("case_id,slide_id,label\na,b,c\n".encode("utf-16-le"), "encoding", "NUL"),
        (b"case_id,slide_id,label\na,b\0,c\n", "encoding", "row 2: found a NUL character"),
        (b"PK\x03\x04 and so on", "encoding", "Excel workbook"),
    ],
    ids=["column", "empty", "long-row", "column-twice", "open-quote", "no-file", "latin-1",
         "utf-16-be", "utf-16-le", "nul", "xlsx"],
)  # fmt: skip
def test_unreadable_labels(tmp_path, content, kind, message):
    file = tmp_path / "l.csv"
    if content is not None:
        file.write_bytes(content)
    found, text = only_fault(file)
    assert found == kind
    assert message in text
    assert str(file) in text


PATIENTS = "case_id,label\nTCGA-05-4244,LUAD\nTCGA-18-3406,LUSC\n07,LUSC\n"


def test_patients_and_labels_alone_take_the_slides_that_are_named_after_them(tmp_path):
    file = write(tmp_path / "l.csv", PATIENTS)
    second = B.replace("DX1", "DX2")
    rows, faults = read(file, files=[A, B, second, "07", "7", "TCGA-99-0000-01Z"])
    assert faults == []
    assert found(rows) == [
        ("TCGA-05-4244", A, "LUAD"), ("TCGA-18-3406", B, "LUSC"),
        ("TCGA-18-3406", second, "LUSC"), ("07", "07", "LUSC"),
    ]  # fmt: skip
    rows, faults = read(file, files=[A])
    assert [row.slide_id for row in rows] == [A, "", ""]
    rows, faults = read(file)
    assert found(rows)[0] == ("TCGA-05-4244", "", "LUAD")
    known = read_cases(write(tmp_path / "c.csv", "case_id\n07\n"), files=["07"])
    assert found(known.value) == [("07", "07", "")]


def test_patients_alone_of_whom_no_slide_has_the_name(tmp_path):
    kind, text = only_fault(write(tmp_path / "l.csv", PATIENTS), files=["slide_1", "slide_2"])
    assert kind == "missing-column"
    assert "no column slide_id or FILENAME among case_id, label, and no feature file" in text
    assert "'slide_1'" in text
    twice = write(tmp_path / "twice.csv", PATIENTS + "07,LUSC\n07,LUAD\n")
    _, faults = read(twice, files=["07"])
    assert [fault.kind for fault in faults] == ["duplicate-patient", "duplicate-patient"]


def test_real_labels(real_data):
    rows, faults = read(real_data / "tcga_nsclc" / "slides.csv")
    assert (len(rows), faults) == (780, [])
    assert len({row.case_id for row in rows}) == 701
    assert all(patient_of(row.slide_id) == row.case_id for row in rows)
