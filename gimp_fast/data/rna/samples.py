"""Samples of RNA-seq: whose they are, of which tissue, and which one of a patient is used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gimp_fast.data.names import PRIMARY, SAMPLE_BARCODE, patient_of_sample

# GDC's words -> TCGA's codes; the ids of other programs do not contain the code.
_CODES = {
    "primary tumor": "01",
    "tumor": "01",
    "recurrent tumor": "02",
    "primary blood derived cancer - peripheral blood": "03",
    "recurrent blood derived cancer - bone marrow": "04",
    "additional - new primary": "05",
    "metastatic": "06",
    "additional metastatic": "07",
    "human tumor original cells": "08",
    "primary blood derived cancer - bone marrow": "09",
    "blood derived normal": "10",
    "solid tissue normal": "11",
    "normal": "11",
    "bone marrow normal": "14",
    "recurrent blood derived cancer - peripheral blood": "40",
    "cell lines": "50",
}
_TISSUES = {
    **{"01": "primary tumour", "02": "recurrence", "03": "leukaemia, blood", "05": "new primary"},
    **{"06": "metastasis", "07": "further metastasis", "09": "leukaemia, bone marrow"},
}
# Newer sample sheets have a tissue type and a tumour descriptor instead.
_DESCRIPTORS = {"metastatic": "06", "recurrence": "02", "new primary": "05"}


@dataclass(frozen=True)
class Sample:
    """One measured sample, with its id in the source and the file it is in.

    ``sample_type`` is TCGA's code or the source's words for it, and empty if unknown; ``code`` is
    the code if there is one; ``drop_reason`` is empty for a sample of the types asked for.
    """

    case_id: str
    barcode: str
    path: Path
    sample_type: str = ""
    drop_reason: str = ""
    code: str = ""


def make_sample(
    barcode: str,
    path: Path,
    sample_types: tuple[str, ...],
    *,
    case_id: str = "",
    words: tuple[str, str] = ("", ""),
) -> Sample:
    """A sample from its id.

    Args:
        barcode: TCGA's, or any other id.
        path: file of the sample.
        sample_types: TCGA's codes of the samples to keep. Samples of unknown type are kept.
        case_id: its patient, if the source says so; by default read from the barcode.
        words: sample or tissue type, and tumour descriptor, in GDC's words.
    """
    match = SAMPLE_BARCODE.fullmatch(barcode)
    code = shown = match and match[3]
    if not code:
        kind, descriptor = map(str.lower, words)
        code, shown = _CODES.get(kind), ", ".join(filter(None, words))
        if kind == "tumor":
            code = _DESCRIPTORS.get(descriptor, code)
    reason = ""
    if shown and code not in sample_types:
        reason = f"not of the sample types asked for (sample type {shown}; asked for "
        reason += f"{', '.join(sample_types)})"
        if sample_types == PRIMARY:
            reason = f"not a primary tumour (sample type {shown})"
    case = patient_of_sample(case_id or barcode)
    return Sample(case, barcode, path, shown or "", reason, code or "")


def choose_samples(samples: Iterable[Sample]) -> tuple[dict[str, Sample], list[tuple[Sample, str]]]:
    """One sample for each patient, of the types asked for: the first by barcode.

    Returns:
        case_id -> sample; and the samples left out, each with the reason.
    """
    chosen: dict[str, Sample] = {}
    dropped = []
    for sample in sorted(samples, key=lambda s: (s.case_id, s.barcode, str(s.path))):
        if sample.drop_reason:
            dropped.append((sample, sample.drop_reason))
        elif sample.case_id in chosen:
            reason = f"another aliquot of the patient is used: {chosen[sample.case_id].barcode}"
            dropped.append((sample, reason))
        else:
            chosen[sample.case_id] = sample
    return chosen, dropped


def describe_types(
    samples: Iterable[Sample], patients: Collection[str], asked: Sequence[str]
) -> tuple[set[str], str, str]:
    """Patients who have tumour samples only of types that were not asked for, and what to ask for.

    Args:
        samples: all of a source.
        patients: of the cohort.
        asked: TCGA's codes of the samples that are kept.

    Returns:
        Those patients; their types, in words; and the options that would include them, each with
        the number of patients that it gives.
    """
    of_type: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        if sample.case_id in patients:
            of_type[sample.code].add(sample.case_id)
    # A sample of unknown type is always kept.
    have = set().union(of_type[""], *(of_type[code] for code in asked))
    others = {c: cases for c, cases in of_type.items() if c in _TISSUES and c not in asked}
    only = set().union(*others.values()) - have
    useful = sorted(code for code, cases in others.items() if cases & only)
    found = " or ".join(f"{code} ({_TISSUES[code]})" for code in useful)
    gives, most = [], 0
    for codes in (*((code,) for code in useful), (*asked, *useful)):
        number = len(set().union(*(of_type[code] for code in codes)))
        if len(codes) == 1 or number > most:
            gives.append(f"--sample-types {' '.join(codes)} for {number}")
        most = max(most, number)
    return only, found, f"{' or '.join(gives)} of {len(patients)} patients"
