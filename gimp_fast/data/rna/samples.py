"""Samples of RNA-seq: whose they are, of which tissue, and which one of a patient is used."""

from __future__ import annotations

from collections.abc import Iterable
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
# Newer sample sheets have a tissue type and a tumour descriptor instead.
_DESCRIPTORS = {"metastatic": "06", "recurrence": "02", "new primary": "05"}


@dataclass(frozen=True)
class Sample:
    """One measured sample, with its id in the source and the file it is in.

    ``sample_type`` is TCGA's code or the source's words for it, and empty if unknown;
    ``drop_reason`` is empty for a sample of the types asked for.
    """

    case_id: str
    barcode: str
    path: Path
    sample_type: str = ""
    drop_reason: str = ""


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
    return Sample(patient_of_sample(case_id or barcode), barcode, path, shown, reason)


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
