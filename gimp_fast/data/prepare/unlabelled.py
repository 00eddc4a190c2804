"""Patients to predict, whose labels need not be known: who they are, from a table or file names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gimp_fast.data.prepare.findings import Findings
from gimp_fast.data.rna import Sample
from gimp_fast.data.tables import LabelRow, patient_of, read_cases


def listed_patients(
    files: Mapping[str, Path], cases: Path | None, label_column: str, findings: Findings
) -> list[LabelRow]:
    """A row a slide.

    Args:
        files: slide_id -> feature file.
        cases: table of patients and slides. None takes every slide there is, of the patient whose
            TCGA barcode its name begins with, or else of a patient of its own.
        label_column: of the table; labels are empty where it has none.
        findings: takes what is wrong with the table.
    """
    if cases is None:
        return [LabelRow(patient_of(id), id, "", str(file)) for id, file in files.items()]
    rows, faults = findings.attempt(lambda: read_cases(cases, label_column=label_column), ([], []))
    findings.faults += faults
    return rows


def patients_of_rna_alone(
    rows: Sequence[LabelRow], samples: Mapping[str, Sample]
) -> list[LabelRow]:
    """Rows of patients who have a sample (case_id -> sample) and no row yet."""
    known = {row.case_id for row in rows}
    return [
        LabelRow(case, "", "", str(sample.path))
        for case, sample in samples.items()
        if case not in known
    ]
