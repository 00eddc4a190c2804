"""The words of the data: columns, barcodes, parts, and the choices of ``prepare``.

Imports nothing heavy, so that ``--help`` can list the choices.
"""

from __future__ import annotations

import re

PARTS = ("train", "val", "test")
# The first of these that a table has names its patients.
PATIENT_COLUMNS = ("case_id", "PATIENT", "patient_id", "patient", "submitter_id", "PATIENT_ID")
SYNTHETIC_ENCODER = "synthetic"

# Whole-slide images in one file. A DICOM slide has many files, of which the user names one.
IMAGE_SUFFIXES = (
    ".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide",
)  # fmt: skip
PATCH_ORDERS = ("file", "row", "column", "hilbert")
# Type of a packed store -> safetensors' name, numpy's; numpy has no bfloat16 and sees its bits.
STORE_DTYPES = {"fp16": ("F16", "<f2"), "bf16": ("BF16", "<u2"), "fp32": ("F32", "<f4")}
AS_GIVEN = "as given"
# Name on the command line -> name in cohorts.
TRANSFORMS = {"log2": "log2(x+1)", "log1p": "log1p", "as-given": AS_GIVEN}
# Unit of GDC files -> suffix of the two-column files that GDC gave out before 2022.
RNA_COLUMNS = {
    "fpkm_unstranded": ".FPKM.txt",
    "fpkm_uq_unstranded": ".FPKM-UQ.txt",
    "tpm_unstranded": None,
    "unstranded": ".htseq.counts",
}
# Those that differ by a factor within a patient, and so order the patient's genes alike. Counts do
# not: they also grow with the length of a gene.
_SAME_ORDER = frozenset({"fpkm_unstranded", "fpkm_uq_unstranded", "tpm_unstranded"})
GENES_IN_ROWS, SAMPLES_IN_ROWS = "genes-in-rows", "samples-in-rows"
ORIENTATIONS = ("auto", GENES_IN_ROWS, SAMPLES_IN_ROWS)
# What to do with a gene on rows with other values, and with one that some samples lack; the
# default comes first.
DUPLICATE_GENES = ("error", "first", "mean", "drop")
MISSING_VALUES = ("error", "drop-gene", "keep")
PRIMARY = ("01",)  # TCGA's code of a primary tumour
# TCGA's codes of sample types; the words are for those who look for a code.
SAMPLE_TYPES = {
    "01": "primary tumour", "02": "recurrent tumour", "03": "primary leukaemia",
    "04": "recurrent leukaemia", "05": "additional primary", "06": "metastasis",
    "07": "additional metastasis", "08": "tumour cells", "09": "primary leukaemia of marrow",
    "10": "normal blood", "11": "normal tissue", "12": "buccal cells", "13": "EBV normal",
    "14": "normal marrow", "15": "type 15", "16": "type 16", "20": "control",
    "40": "recurrent leukaemia of blood", "50": "cell line", "60": "xenograft",
    "61": "cell line of a xenograft", "99": "type 99",
}  # fmt: skip

# Groups: patient, tissue source site, and in SAMPLE_BARCODE the code of the sample type.
_PATIENT = r"([A-Z0-9]{4}-([A-Z0-9]{2})-[A-Z0-9]{4})"
SAMPLE_BARCODE = re.compile(rf"{_PATIENT}(?:-(\d\d)[A-Z]?(?:-.*)?)?")
_TCGA = re.compile(rf"(?=TCGA-){_PATIENT}(?![A-Za-z0-9])")


def order_alike(unit: str, other: str) -> bool:
    """Whether two units of ``RNA_COLUMNS`` order the genes of a patient alike."""
    return unit == other or {unit, other} <= _SAME_ORDER


def patient_of(identifier: str) -> str:
    """``TCGA-XX-XXXX`` if the id of a slide, sample or case starts so; else the id itself."""
    barcode = _TCGA.match(identifier)
    return barcode[1] if barcode else identifier


def patient_of_sample(identifier: str) -> str:
    """The patient in a sample's barcode, of any project that uses TCGA's form; else the id."""
    barcode = SAMPLE_BARCODE.fullmatch(identifier)
    return barcode[1] if barcode else identifier


def site_of(case_id: str) -> str | None:
    """Tissue source site, characters 6-7 of a TCGA barcode; None for any other id."""
    barcode = _TCGA.match(case_id)
    return barcode[2] if barcode else None
