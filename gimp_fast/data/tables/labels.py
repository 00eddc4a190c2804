"""Labels from the tables of other projects. Ids stay text: zero-padded numbers keep their zeros.

``read_labels`` knows these layouts; other columns, such as pandas' unnamed index, are ignored.

- CLAM: ``case_id,slide_id,label``, one row per slide.
- MCAT, SurvPath: the same, with another name of the label column and slide_id ending in ``.svs``.
- STAMP: a clini table (``PATIENT`` and the label) beside a slide table (``PATIENT,FILENAME``). The
  former may be cBioPortal's (``PATIENT_ID``, below lines that begin with ``#``).
- A table of patients and labels alone. A feature file belongs to the patient whose TCGA barcode its
  name begins with, or whose id it is.
- TransMIL: ``fold0.csv`` with slide ids under ``train,train_label,val,val_label,test,test_label``,
  or a folder of such files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gimp_fast.data.names import PARTS, PATIENT_COLUMNS, patient_of
from gimp_fast.data.slides import endings
from gimp_fast.data.tables.clinical import open_clinical
from gimp_fast.errors import FaultError, Faults, Read
from gimp_fast.files.numbers import MISSING
from gimp_fast.files.paths import visible
from gimp_fast.files.table import Table, open_table

LABEL_COLUMN = "label"
SLIDE_COLUMNS = ("slide_id", "FILENAME")
IMAGE_EXTENSIONS = (".svs", ".tiff", ".tif", ".ndpi", ".mrxs", ".scn", ".bif")


@dataclass(frozen=True)
class LabelRow:
    """One slide of one patient; ``slide_id`` is empty for a patient without slides."""

    case_id: str
    slide_id: str
    label: str
    where: str


def strip_extension(slide_id: str) -> str:
    """``slide_id`` without the ending of a slide or feature file."""
    for extension in (*IMAGE_EXTENSIONS, *endings()):
        if slide_id.lower().endswith(extension):
            return slide_id[: -len(extension)]
    return slide_id


def read_labels(
    path: str | Path,
    *,
    label_column: str = LABEL_COLUMN,
    slide_table: str | Path | None = None,
    files: Iterable[str] = (),
) -> Read[list[LabelRow]]:
    """Rows of a table of labels in one of the layouts above.

    Clini patients without slides have an empty ``slide_id``; patients that only the slide table
    has, an empty ``label``.

    Args:
        path: the table; for TransMIL, one fold file or a folder of them.
        label_column: column of the label; fold files have their own.
        slide_table: STAMP's slide table.
        files: ids of the slides that have feature files, for a table without a column of slides.

    Returns:
        The rows, with every fault: an unreadable file, a missing column, duplicate slides, blank
        ids, patients with two labels, …
    """
    labels = _Labels()
    with labels.faults.collect():
        _add_labels(labels, Path(path), label_column, slide_table, files)
        labels.need_rows(path)
        return labels.faults.read(labels.rows)
    return labels.faults.read([])


def _add_labels(
    labels: _Labels,
    path: Path,
    label_column: str,
    slide_table: str | Path | None,
    files: Iterable[str],
) -> None:
    if path.is_dir():
        folds = [open_table(file) for file in visible(path.glob("*.csv"))]
        if not folds:
            found, expected = "no csv in this folder", "TransMIL's fold files"
            raise FaultError.of("missing-file", path, found, expected)
    else:
        table = open_clinical(path)
        is_fold = {"train", "train_label"} <= set(table.header) and label_column == LABEL_COLUMN
        folds = [table] if is_fold else []
    if folds:
        if slide_table is not None or label_column != LABEL_COLUMN:
            found = "TransMIL's fold files, which list slides and labels"
            raise FaultError.of("label-layout", path, found, "no slide table and no label column")
        _add_folds(labels, folds)
    elif slide_table is not None:
        _add_clini(labels, table, open_table(slide_table), label_column)
    else:
        labels.add_table(table, label_column, files=files)


def read_cases(
    path: str | Path, *, label_column: str = LABEL_COLUMN, files: Iterable[str] = ()
) -> Read[list[LabelRow]]:
    """Rows of a table of patients and slides whose labels need not be known.

    Args:
        path: a table with a column of patients and one of slides (``slide_id``, or STAMP's
            ``FILENAME``), a row per slide; the slide is empty for a patient without slides.
        label_column: read if the table has it; unknown labels are empty.
        files: as of :func:`read_labels`.
    """
    labels = _Labels()
    with labels.faults.collect():
        table = open_table(path)
        known = [label_column] if label_column in table.header else []
        labels.add_table(table, *known, files=files)
        labels.need_rows(path)
        # A label in one row of a patient is the label of all rows.
        rows = [replace(row, label=labels.label_of.get(row.case_id, "")) for row in labels.rows]
        return labels.faults.read(rows)
    return labels.faults.read([])


@dataclass
class _Labels:
    """Rows read so far; ``add`` checks them."""

    faults: Faults = field(default_factory=Faults)
    rows: list[LabelRow] = field(default_factory=list)
    label_of: dict[str, str] = field(default_factory=dict)
    first_place: dict[str, str] = field(default_factory=dict)

    def need_rows(self, path: str | Path) -> None:
        """Add a fault if there was no row at all."""
        if not self.rows and not self.faults.items:
            self.faults.add("no-rows", path, "a table without rows", "one row per slide")

    def add_table(self, table: Table, *label_column: str, files: Iterable[str]) -> None:
        """The rows of a table of patients, slides and, if there are columns of them, labels."""
        patient = table.one_of(*PATIENT_COLUMNS)
        slide = next((name for name in SLIDE_COLUMNS if name in table.header), None)
        if slide is None:
            self._add_patients(table, [patient, *label_column], files)
            return
        for where, case, name, *label in table.rows(patient, slide, *label_column):
            self.add(case, _slide_id(name, slide), "".join(label), where, name)

    def _add_patients(self, table: Table, columns: Sequence[str], files: Iterable[str]) -> None:
        """The rows of a table of patients and, perhaps, labels; slides are known by their names."""
        slides_of: dict[str, list[str]] = {}
        for slide in files:
            slides_of.setdefault(patient_of(slide), []).append(slide)
        rows = list(table.rows(*columns))
        if slides_of and not any(case in slides_of for _, case, *_ in rows):
            column, example = " or ".join(SLIDE_COLUMNS), next(iter(slides_of.values()))[0]
            found = f"no column {column} among {table.describe_header()}, and no feature file "
            found += f"that is named after one of its patients (the first is '{example}')"
            expected = f"a column {column}, or files named by a patient's id or TCGA barcode"
            raise FaultError.of("missing-column", table.path, found, expected)
        first: dict[str, str] = {}
        for where, case, *label in rows:
            if case and first.setdefault(case, where) != where:
                found = f"patient '{case}' again (first in {first[case]})"
                self.faults.add("duplicate-patient", where, found, "each patient once")
                continue
            for slide in slides_of.get(case, [""]):
                self.add(case, slide, "".join(label), where)

    def add(self, case: str, slide: str, label: str, where: str, written: str = "") -> None:
        """Add one row; ``written`` is the cell that ``slide`` comes from."""
        label = "" if label in MISSING else label
        if not case:
            self.faults.add("missing-id", where, "no patient id", "a patient's id")
        elif written and not slide:
            self.faults.add("missing-id", where, f"'{written}' as slide", "a slide's id")
        elif not (case + slide + label).isprintable():
            found = f"a line break or an invisible character in {(case, slide, label)}"
            self.faults.add("bad-id", where, found, "ids and labels of plain text")
        elif slide and slide in self.first_place:
            found = f"slide '{slide}' again (first in {self.first_place[slide]})"
            self.faults.add("duplicate-slide", where, found, "each slide once")
        else:
            self.first_place.setdefault(slide, where)
            self.rows.append(LabelRow(case, slide, label, where))
            if label and self.label_of.setdefault(case, label) != label:
                found, expected = f"label '{label}' for patient '{case}'", self.label_of[case]
                self.faults.add("label-conflict", where, found, f"'{expected}' as before")


def _slide_id(cell: str, column: str) -> str:
    """The slide in a cell; a FILENAME may contain folders, and its stem is the slide."""
    return strip_extension(re.split(r"[/\\]", cell)[-1] if column == "FILENAME" else cell)


def _add_clini(labels: _Labels, clini: Table, slides: Table, label_column: str) -> None:
    own = [name for name in SLIDE_COLUMNS if name in clini.header]
    if own:
        found = f"a column '{own[0]}', and a slide table {slides.path} as well"
        raise FaultError.of("label-layout", clini.path, found, "slides in only one of them")
    patients: dict[str, tuple[str, str]] = {}
    patient = clini.one_of(*PATIENT_COLUMNS)
    for where, case, label in clini.rows(patient, label_column):
        first_label, first_place = patients.setdefault(case, (label, where))
        if not case:
            labels.faults.add("missing-id", where, "no patient id", "a patient's id")
        elif first_place != where and first_label == label:
            found = f"patient '{case}' again (first in {first_place})"
            labels.faults.add("duplicate-patient", where, found, "each patient once")
        elif first_place != where:
            found = f"label '{label}' for patient '{case}'"
            labels.faults.add("label-conflict", where, found, f"'{first_label}' as before")
    with_slides = set()
    patient, slide = slides.one_of(*PATIENT_COLUMNS), slides.one_of(*SLIDE_COLUMNS)
    for where, case, name in slides.rows(patient, slide):
        if not name:
            found = f"no {slide} for patient '{case}'"
            labels.faults.add("missing-id", where, found, "a slide's file")
            continue
        with_slides.add(case)
        label, _ = patients.get(case, ("", where))
        labels.add(case, _slide_id(name, slide), label, where, name)
    for case, (label, where) in patients.items():
        if case and case not in with_slides:
            labels.add(case, "", label, where)


def _add_folds(labels: _Labels, folds: list[Table]) -> None:
    """Add the slides of fold files, which repeat them in other parts with the same label."""
    slides: dict[str, tuple[str, str]] = {}
    for table in folds:
        listed: set[str] = set()
        for where, name, label in _fold_rows(table):
            slide = strip_extension(name)
            if not slide:
                found = f"label '{label}' of slide '{name}'"
                labels.faults.add("missing-id", where, found, "a slide's id")
                continue
            if slide in listed:
                found = f"slide '{slide}' again"
                labels.faults.add("duplicate-slide", where, found, "each slide once")
            listed.add(slide)
            known = slides.get(slide, ("", where))[0]
            if label and known and label != known:
                found = f"label '{label}' for slide '{slide}'"
                labels.faults.add("label-conflict", where, found, f"'{known}' as before")
            elif slide not in slides or not known:
                slides[slide] = label, where
    for slide, (label, where) in slides.items():
        labels.add(patient_of(slide), slide, label, where)


def _fold_rows(table: Table) -> Iterator[tuple[str, str, str]]:
    """(where, slide, label) of every part of one fold file, without the padding."""
    for part in [part for part in PARTS if part in table.header] or ["train"]:
        for where, slide, label in table.rows(part, f"{part}_label"):
            slide = "" if slide in MISSING else slide
            label = "" if label in MISSING else label
            # pandas writes 0.0 and 1.0 for the labels of a shorter part, which it pads with NaN.
            whole = re.fullmatch(r"(\d+)\.0", label)
            if slide or label:
                yield f"{where} [{part}]", slide, whole[1] if whole else label
