"""Readers of RNA-seq expression: GDC STAR files, GDC FPKM files of old, and Xena matrices.

``open_expression`` lists the samples without reading their values; ``ExpressionSource.read``
reads those that are wanted, so that aliquots nobody uses cost nothing.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from gimp_fast.data.rna_files import (
    fault,
    matrix_header,
    read_matrix,
    read_star_counts,
    read_two_columns,
    table_fault,
)
from gimp_fast.errors import Fault, FaultError

# Unit -> suffix of the two-column files that GDC gave out before 2022.
RNA_COLUMNS = {
    "fpkm_unstranded": ".FPKM.txt",
    "fpkm_uq_unstranded": ".FPKM-UQ.txt",
    "tpm_unstranded": None,
    "unstranded": ".htseq.counts",
}
TRANSFORMS = ("log2(x+1)", "as given")
STAR_SUFFIX = ".rna_seq.augmented_star_gene_counts.tsv"
_SHEET_COLUMNS = ("File ID", "File Name", "Case ID", "Sample ID")
_BARCODE = re.compile(r"[A-Z0-9]{4}-[A-Z0-9]{2}-[A-Z0-9]{4}(?:-(\d\d)[A-Z]?(?:-.*)?)?")
Loaded = tuple[np.ndarray, list[dict[str, str]], list[Fault]]


@dataclass(frozen=True)
class Sample:
    """One measured sample. ``tumour`` is False for normal tissue and anything but code 01."""

    case_id: str
    barcode: str
    path: Path
    tumour: bool
    sample_type: str


@dataclass(frozen=True)
class Expression:
    """Transformed expression.

    Attributes:
        values: (n, G) float32, one row a sample in the order asked for.
        genes: rows gene_id, gene_name, gene_type.
        transform: what was applied.
    """

    values: np.ndarray
    genes: list[dict[str, str]]
    transform: str


@dataclass(frozen=True)
class ExpressionSource:
    """Samples of one source, not yet read.

    Attributes:
        kind: ``gdc`` or ``matrix``.
        path: folder or file.
        column: unit read from GDC files; None for a matrix.
        samples: everything that is there.
        load: samples -> (values (n, G) float32, gene rows, faults).
    """

    kind: str
    path: Path
    column: str | None
    samples: tuple[Sample, ...]
    load: Callable[[list[Sample]], Loaded] = field(repr=False)

    def read(self, samples: Iterable[Sample], transform: str | None = None) -> Expression:
        """Read, check and transform samples.

        Args:
            samples: some of ``samples``.
            transform: one of ``TRANSFORMS``; by default ``log2(x+1)`` for GDC's linear units
                and ``as given`` for matrices, which Xena has already transformed.

        Raises:
            FaultError: every unreadable file, other gene list, and non-finite or negative value.
        """
        samples = list(samples)
        transform = transform or ("log2(x+1)" if self.kind == "gdc" else "as given")
        values, genes, faults = self.load(samples)
        linear = self.kind == "gdc" or transform == "log2(x+1)"
        faults += _value_faults(samples, values, genes, linear)
        if faults:
            raise FaultError(faults, str(self.path))
        if transform == "log2(x+1)":
            values = np.log1p(values) / np.float32(np.log(2.0))
        return Expression(values, genes, transform)


def open_expression(
    path: str | Path, sample_sheet: str | Path | None = None, column: str = "fpkm_unstranded"
) -> ExpressionSource:
    """List the samples of a GDC download folder or of a genes × samples matrix.

    Args:
        path: a folder of GDC files, or a matrix file (``.tsv``, ``.tsv.gz``).
        sample_sheet: GDC's ``gdc_sample_sheet*.tsv``; looked for in the folder by default.
        column: unit to read from GDC files, a key of ``RNA_COLUMNS``.

    Raises:
        FaultError: nothing readable there, or a faulty sheet.
    """
    path = Path(path)
    if path.is_dir():
        sheet = Path(sample_sheet) if sample_sheet else _find_sheet(path)
        samples = _sheet_samples(path, sheet, column)
        return ExpressionSource(
            "gdc", path, column, tuple(samples), lambda chosen: _load_gdc(chosen, column)
        )
    if not path.is_file():
        raise fault("missing-file", path, "no such file", "a folder of GDC files or a matrix")
    samples = _matrix_samples(path)
    return ExpressionSource(
        "matrix", path, None, tuple(samples), lambda chosen: _load_matrix(path, chosen)
    )


def choose_samples(samples: Iterable[Sample]) -> tuple[dict[str, Sample], list[tuple[Sample, str]]]:
    """One tumour sample a patient: the first by barcode.

    Returns:
        case_id -> sample, and the samples left out, each with the reason.
    """
    chosen: dict[str, Sample] = {}
    dropped = []
    for sample in sorted(samples, key=lambda s: (s.case_id, s.barcode, str(s.path))):
        if not sample.tumour:
            reason = f"not a primary tumour (sample type {sample.sample_type})"
            dropped.append((sample, reason))
        elif sample.case_id in chosen:
            reason = f"another aliquot of the patient is used: {chosen[sample.case_id].barcode}"
            dropped.append((sample, reason))
        else:
            chosen[sample.case_id] = sample
    return chosen, dropped


def _find_sheet(folder: Path) -> Path:
    sheets = sorted(folder.glob("gdc_sample_sheet*.tsv"))
    if len(sheets) != 1:
        names = ", ".join(sheet.name for sheet in sheets) or "none"
        expected = "one gdc_sample_sheet*.tsv there, or --sample-sheet"
        raise fault("sample-sheet", folder, names, expected)
    return sheets[0]


def _sheet_samples(folder: Path, sheet: Path, column: str) -> list[Sample]:
    try:
        with sheet.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, delimiter="\t")
            rows = [row for row in reader if any(row.values())]
    except (OSError, ValueError, csv.Error) as error:
        raise table_fault(sheet, error, "a GDC sample sheet") from error
    missing = [name for name in _SHEET_COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise fault("missing-column", sheet, f"no column {missing}", f"{list(_SHEET_COLUMNS)}")
    suffixes = tuple(
        suffix + end
        for suffix in (STAR_SUFFIX, RNA_COLUMNS[column])
        if suffix
        for end in ("", ".gz")
    )
    samples, seen = [], set()
    for number, row in enumerate(rows, start=2):
        # The same sheet may list slide images and other expression units.
        if not (row["File Name"] or "").endswith(suffixes):
            continue
        if row["File Name"] in seen:
            where = f"{sheet} row {number}"
            raise fault("duplicate-file", where, f"'{row['File Name']}' again", "each file once")
        seen.add(row["File Name"])
        samples.append(_sheet_sample(folder, row))
    if not samples:
        found = f"{len(rows)} rows, none naming a file *{' or *'.join(suffixes)}"
        raise fault("no-samples", sheet, found, "files of gene expression")
    return samples


def _sheet_sample(folder: Path, row: dict[str, str]) -> Sample:
    # GDC repeats the id, separated by commas, where a file covers several portions of a sample
    case, barcode = (row[key].split(",")[0].strip() for key in ("Case ID", "Sample ID"))
    path = folder / row["File ID"] / row["File Name"]
    if not path.exists() and (folder / row["File Name"]).exists():
        path = folder / row["File Name"]
    match = _BARCODE.fullmatch(barcode)
    if match and match[1]:
        return Sample(case, barcode, path, match[1] == "01", match[1])
    kind = row.get("Sample Type") or row.get("Tissue Type") or ""
    tumour = kind.split(",")[0].strip() in ("Primary Tumor", "Tumor", "")
    return Sample(case, barcode, path, tumour, kind)


def _load_gdc(samples: list[Sample], column: str) -> Loaded:
    faults: list[Fault] = []
    gene_lists: dict[tuple[str, ...], pd.DataFrame] = {}
    read: list[tuple[Sample, tuple[str, ...], np.ndarray]] = []
    for sample in samples:
        try:
            genes, values = _read_gdc_file(sample.path, column)
        except FaultError as error:
            faults += error.faults
            continue
        # files of one cohort repeat the same list: keep one object for all of them
        ids = next((known for known in gene_lists if known == (*genes["gene_id"],)), None)
        if ids is None:
            ids = tuple(genes["gene_id"])
            gene_lists[ids] = genes
        read.append((sample, ids, values.astype(np.float32)))
    if not read:
        return np.empty((0, 0), np.float32), [], faults
    # The list that most files have is the right one; a damaged file must not set it.
    usual = Counter(ids for _, ids, _ in read).most_common(1)[0][0]
    typical = next(sample.path for sample, ids, _ in read if ids is usual)
    faults += _duplicate_genes(typical, gene_lists[usual]["gene_id"])
    for sample, ids, _ in read:
        if ids is not usual:
            expected = f"the {len(usual)} genes of {typical.name} in that order"
            found = _gene_difference(ids, usual)
            faults.append(Fault("gene-list", str(sample.path), found, expected))
    empty = np.zeros(len(usual), np.float32)
    values_of = {sample: values for sample, ids, values in read if ids is usual}
    values = np.stack([values_of.get(sample, empty) for sample in samples])  # (n, G)
    return values, gene_lists[usual].to_dict("records"), faults


def _read_gdc_file(path: Path, column: str) -> tuple[pd.DataFrame, np.ndarray]:
    if not path.is_file():
        raise fault("missing-file", path, "no such file", "a file that the sample sheet names")
    if STAR_SUFFIX in path.name:
        return read_star_counts(path, column)
    return read_two_columns(path)


def _gene_difference(found: tuple[str, ...], expected: tuple[str, ...]) -> str:
    notes = [f"with {gene}" for gene in sorted(set(found) - set(expected))[:1]]
    notes += [f"without {gene}" for gene in sorted(set(expected) - set(found))[:1]]
    return f"{len(found)} genes, {', '.join(notes) or 'in another order'}"


def _matrix_samples(path: Path) -> list[Sample]:
    names = matrix_header(path)[1:]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        found = f"column '{repeated[0]}' more than once"
        raise fault("duplicate-sample", path, found, "each sample once")
    samples = []
    for name in names:
        match = _BARCODE.fullmatch(name)
        case = name[:12] if match else name
        code = (match and match[1]) or ""
        samples.append(Sample(case, name, path, code in ("01", ""), code))
    return samples


def _load_matrix(path: Path, samples: list[Sample]) -> Loaded:
    ids, values = read_matrix(path, [sample.barcode for sample in samples])
    genes = [{"gene_id": gene, "gene_name": "", "gene_type": ""} for gene in ids]
    return values, genes, _duplicate_genes(path, ids)


def _duplicate_genes(path: Path, ids: pd.Series) -> list[Fault]:
    repeated = ids[ids.duplicated()]
    if repeated.empty and len(ids):
        return []
    found = f"gene {repeated.iloc[0]} more than once" if len(ids) else "no genes"
    return [Fault("duplicate-gene" if len(ids) else "no-genes", str(path), found, "each gene once")]


def _value_faults(
    samples: list[Sample], values: np.ndarray, genes: list[dict[str, str]], linear: bool
) -> list[Fault]:
    faults = []
    for sample, row in zip(samples, values, strict=True):
        where = f"{sample.path} ({sample.barcode})"
        bad = np.flatnonzero(~np.isfinite(row))
        negative = np.flatnonzero(row < 0) if linear else bad[:0]
        if len(bad):
            found = f"{len(bad)} missing or non-finite values, first at {genes[bad[0]]['gene_id']}"
            faults.append(Fault("expression-not-finite", where, found, "a number for every gene"))
        elif len(negative):
            gene = genes[negative[0]]["gene_id"]
            found = f"{len(negative)} negative values, first {row[negative[0]]:g} at {gene}"
            faults.append(Fault("negative-expression", where, found, "linear values of 0 or more"))
    return faults
