"""Labels from the tables of other projects. Ids are text throughout: zero-padded numbers survive.

``read_labels`` knows these layouts; further columns, such as pandas' unnamed index, are ignored.

- CLAM: ``case_id,slide_id,label``, one row a slide.
- MCAT, SurvPath: the same, with the label under a name of its own and slide_id ending in ``.svs``.
- STAMP: a clini table (``PATIENT`` and the label) beside a slide table (``PATIENT,FILENAME``).
- TransMIL: ``fold0.csv`` with slide ids under ``train,train_label,val,val_label,test,test_label``,
  or a folder of such files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from gimp_fast.data.cohort import PARTS
from gimp_fast.data.slides import SUFFIXES
from gimp_fast.errors import Fault, FaultError
from gimp_fast.files.table import Table, open_table

LABEL_COLUMN = "label"
PATIENT_COLUMNS = ("case_id", "PATIENT")
SLIDE_COLUMNS = ("slide_id", "FILENAME")
SLIDE_EXTENSIONS = (".svs", ".tiff", ".tif", ".ndpi", ".mrxs", ".scn", ".bif", *SUFFIXES)
NO_LABEL = ("", "NA", "N/A", "NaN", "nan")
# Group 1 is the patient, group 2 the tissue source site.
TCGA_BARCODE = re.compile(r"(TCGA-([A-Z0-9]{2})-[A-Z0-9]{4})(?![A-Za-z0-9])")


@dataclass(frozen=True)
class LabelRow:
    """One slide of one patient; ``slide_id`` is empty for a patient without slides."""

    case_id: str
    slide_id: str
    label: str
    where: str


def strip_extension(slide_id: str) -> str:
    """``slide_id`` without a known slide or feature file ending."""
    for extension in SLIDE_EXTENSIONS:
        if slide_id.lower().endswith(extension):
            return slide_id[: -len(extension)]
    return slide_id


def patient_of(identifier: str) -> str:
    """``TCGA-XX-XXXX`` where the id of a slide, sample or case starts so; else the id itself."""
    barcode = TCGA_BARCODE.match(identifier)
    return barcode[1] if barcode else identifier


def read_labels(
    path: str | Path, *, label_column: str = LABEL_COLUMN, slide_table: str | Path | None = None
) -> tuple[list[LabelRow], list[Fault]]:
    """Read a table of labels in one of the layouts above.

    Args:
        path: the table; for TransMIL, one fold file or a folder of them.
        label_column: column of the label; fold files bring their own.
        slide_table: STAMP's slide table.

    Returns:
        The rows, and every fault in them: duplicate slides, blank ids, patients of two labels.
        Clini patients without slides have an empty ``slide_id``; patients that only the slide
        table has, an empty ``label``.

    Raises:
        FaultError: a file cannot be read or lacks a column.
    """
    path = Path(path)
    if path.is_dir():
        folds = [open_table(file) for file in sorted(path.glob("*.csv"))]
        if not folds:
            found, expected = "no csv in this folder", "TransMIL's fold files"
            raise FaultError.of("missing-file", path, found, expected)
        table = None
    else:
        table = open_table(path)
        folds = [table] if is_fold_table(table) and label_column == LABEL_COLUMN else []
    labels = _Labels()
    if folds:
        if slide_table is not None or label_column != LABEL_COLUMN:
            found = "TransMIL's fold files, which list slides and labels"
            raise FaultError.of("label-layout", path, found, "no slide table and no label column")
        _add_folds(labels, folds)
    elif slide_table is not None:
        _add_clini(labels, table, open_table(slide_table), label_column)
    else:
        patient, slide = table.one_of(*PATIENT_COLUMNS), table.one_of(*SLIDE_COLUMNS)
        for where, case, name, label in table.rows(patient, slide, label_column):
            labels.add(case, _slide_id(name, slide), label, where, name)
    if not labels.seen_any and not labels.faults:
        labels.fault("no-rows", str(path), "a table without rows", "one row a slide")
    return labels.rows, labels.faults


def read_cases(
    path: str | Path, *, label_column: str = LABEL_COLUMN
) -> tuple[list[LabelRow], list[Fault]]:
    """Read a table of patients and their slides, whose labels need not be known.

    Args:
        path: a table with the columns ``case_id`` and ``slide_id`` (or STAMP's ``PATIENT`` and
            ``FILENAME``), a row a slide; the slide is empty for a patient without slides.
        label_column: read where the table has it.

    Returns:
        The rows, with an empty label where it is not known; and every fault in them.

    Raises:
        FaultError: the file cannot be read or lacks a column.
    """
    table, labels = open_table(path), _Labels()
    patient = table.one_of(*PATIENT_COLUMNS)
    slide = table.one_of(*SLIDE_COLUMNS)
    label = [label_column] if label_column in table.header else []
    for where, case, name, *known in table.rows(patient, slide, *label):
        labels.add(case, _slide_id(name, slide), "".join(known), where, name)
    if not labels.seen_any and not labels.faults:
        labels.fault("no-rows", str(path), "a table without rows", "one row a slide")
    # A label in one row of a patient is that of all.
    rows = [replace(row, label=labels.label_of.get(row.case_id, "")) for row in labels.rows]
    return rows, labels.faults


def is_fold_table(table: Table) -> bool:
    """Whether the columns are those of TransMIL's ``fold0.csv``."""
    return {"train", "train_label"} <= set(table.header)


@dataclass
class _Labels:
    """Rows so far, and what is wrong with them."""

    rows: list[LabelRow] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    label_of: dict[str, str] = field(default_factory=dict)
    first_place: dict[str, str] = field(default_factory=dict)
    seen_any: bool = False

    def fault(self, kind: str, where: str, found: str, expected: str) -> None:
        self.faults.append(Fault(kind, where, found, expected))

    def add(self, case: str, slide: str, label: str, where: str, written: str = "") -> None:
        """One row; ``written`` is the cell that ``slide`` was taken from."""
        self.seen_any = True
        label = "" if label in NO_LABEL else label
        if not case:
            self.fault("missing-id", where, "no patient id", "a patient's id")
        elif written and not slide:
            self.fault("missing-id", where, f"'{written}' as slide", "a slide's id")
        elif not (case + slide + label).isprintable():
            found = f"a line break or an invisible character in {(case, slide, label)}"
            self.fault("bad-id", where, found, "ids and labels of plain text")
        elif slide and slide in self.first_place:
            found = f"slide '{slide}' again (first in {self.first_place[slide]})"
            self.fault("duplicate-slide", where, found, "each slide once")
        else:
            self.first_place.setdefault(slide, where)
            self.rows.append(LabelRow(case, slide, label, where))
            if label and self.label_of.setdefault(case, label) != label:
                found = f"label '{label}' for patient '{case}'"
                self.fault("label-conflict", where, found, f"'{self.label_of[case]}' as before")


def _slide_id(cell: str, column: str) -> str:
    """A FILENAME may lie in folders of the feature folder; its stem names the slide."""
    if column == "FILENAME":
        cell = re.split(r"[/\\]", cell)[-1]
    return strip_extension(cell)


def _add_clini(labels: _Labels, clini: Table, slides: Table, label_column: str) -> None:
    own = [name for name in SLIDE_COLUMNS if name in clini.header]
    if own:
        found = f"a column '{own[0]}', and a slide table {slides.path} besides"
        raise FaultError.of("label-layout", clini.path, found, "slides listed in one of them")
    patients: dict[str, tuple[str, str]] = {}
    patient = clini.one_of(*PATIENT_COLUMNS)
    for where, case, label in clini.rows(patient, label_column):
        first_label, first_place = patients.setdefault(case, (label, where))
        if first_place != where and first_label == label and case:
            found = f"patient '{case}' again (first in {first_place})"
            labels.fault("duplicate-patient", where, found, "each patient once")
        elif first_place != where and case:
            found = f"label '{label}' for patient '{case}'"
            labels.fault("label-conflict", where, found, f"'{first_label}' as before")
        elif not case:
            labels.fault("missing-id", where, "no patient id", "a patient's id")
    with_slides = set()
    patient, slide = slides.one_of(*PATIENT_COLUMNS), slides.one_of(*SLIDE_COLUMNS)
    for where, case, name in slides.rows(patient, slide):
        if not name:
            labels.fault("missing-id", where, f"no {slide} for patient '{case}'", "a slide's file")
            continue
        with_slides.add(case)
        label, _ = patients.get(case, ("", where))
        labels.add(case, _slide_id(name, slide), label, where, name)
    for case, (label, where) in patients.items():
        if case and case not in with_slides:
            labels.add(case, "", label, where)


def _add_folds(labels: _Labels, folds: list[Table]) -> None:
    """The folds list the same slides in other parts; a slide's labels must agree."""
    slides: dict[str, tuple[str, str]] = {}
    for table in folds:
        listed: set[str] = set()
        for where, name, label in _fold_rows(table):
            slide = strip_extension(name)
            if not slide:
                found = f"label '{label}' of slide '{name}'"
                labels.fault("missing-id", where, found, "a slide's id")
                continue
            if slide in listed:
                labels.fault("duplicate-slide", where, f"slide '{slide}' again", "each slide once")
            listed.add(slide)
            known = slides.get(slide, ("", where))[0]
            if label and known and label != known:
                found = f"label '{label}' for slide '{slide}'"
                labels.fault("label-conflict", where, found, f"'{known}' as before")
            elif slide not in slides or not known:
                slides[slide] = label, where
    for slide, (label, where) in slides.items():
        labels.add(patient_of(slide), slide, label, where)


def _fold_rows(table: Table) -> Iterator[tuple[str, str, str]]:
    """(where, slide, label) of every part of one fold file, the padding left out."""
    for part in [part for part in PARTS if part in table.header] or ["train"]:
        for where, slide, label in table.rows(part, f"{part}_label"):
            slide = "" if slide in NO_LABEL else slide
            label = "" if label in NO_LABEL else label
            # Padding with NaN made pandas write the labels of a shorter part as 0.0 and 1.0.
            whole = re.fullmatch(r"(\d+)\.0", label)
            if slide or label:
                yield f"{where} [{part}]", slide, whole[1] if whole else label
