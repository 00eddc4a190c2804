"""A GDC download: a folder of expression files and the sample sheet that lists their patients."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from gimp_fast.data.names import RNA_COLUMNS
from gimp_fast.data.rna.gdc_files import STAR_SUFFIX, read_gdc_file, read_gene_rows
from gimp_fast.data.rna.samples import Sample, make_sample
from gimp_fast.data.rna.source import (
    SUMMARY_REASON,
    Expression,
    ExpressionSource,
    drop_row,
    gene_faults,
)
from gimp_fast.errors import Fault, FaultError, Read
from gimp_fast.files.parallel import parallel_map
from gimp_fast.files.table import open_table

_SHEET_COLUMNS = ("File ID", "File Name", "Case ID", "Sample ID")
# Of the sample: the first in older sheets, the others in newer ones.
_TYPE_COLUMNS = ("Sample Type", "Tissue Type", "Tumor Descriptor")


def open_gdc(
    folder: Path,
    sheet: Path | None,
    column: str,
    sample_types: tuple[str, ...],
    workers: int | None,
) -> ExpressionSource:
    """List the expression files that the sample sheet names; see ``open_expression``."""
    samples = _sheet_samples(folder, sheet or _find_sheet(folder), column, sample_types)
    load = partial(_load, folder, column, workers)
    return ExpressionSource("gdc", (folder,), column, tuple(samples), load, column)


def _find_sheet(folder: Path) -> Path:
    sheets = sorted(folder.glob("gdc_sample_sheet*.tsv"))
    if len(sheets) != 1:
        names = ", ".join(sheet.name for sheet in sheets) or "none"
        expected = "one gdc_sample_sheet*.tsv there, or --sample-sheet"
        raise FaultError.of("sample-sheet", folder, names, expected)
    return sheets[0]


def _sheet_samples(
    folder: Path, sheet: Path, column: str, sample_types: tuple[str, ...]
) -> list[Sample]:
    rows = _sheet_rows(sheet)
    suffixes = tuple(
        suffix + end
        for suffix in (STAR_SUFFIX, RNA_COLUMNS[column])
        if suffix
        for end in ("", ".gz")
    )
    samples: list[Sample] = []
    seen: set[str] = set()
    for where, row in rows:
        # The same sheet may list slide images and other expression units.
        if not row["File Name"].endswith(suffixes):
            continue
        if row["File Name"] in seen:
            found = f"'{row['File Name']}' again"
            raise FaultError.of("duplicate-file", where, found, "each file once")
        seen.add(row["File Name"])
        samples.append(_sheet_sample(folder, where, row, sample_types))
    if not samples:
        found = f"{len(rows)} rows, none naming a file *{' or *'.join(suffixes)}"
        raise FaultError.of("no-samples", sheet, found, "files of gene expression")
    return samples


def _sheet_rows(sheet: Path) -> list[tuple[str, dict[str, str]]]:
    """(where, column -> cell) of each row."""
    # A portal may leave the last line open: a row that was cut has too few cells.
    table = open_table(sheet, "\t", exact=True, expected="a GDC sample sheet")
    columns = (*_SHEET_COLUMNS, *(name for name in _TYPE_COLUMNS if name in table.header))
    return [
        (where, dict(zip(columns, cells, strict=True))) for where, *cells in table.rows(*columns)
    ]


def _sheet_sample(
    folder: Path, where: str, row: dict[str, str], sample_types: tuple[str, ...]
) -> Sample:
    # GDC repeats ids and types, separated by commas, if a file covers several portions.
    cases = {case.strip() for case in row["Case ID"].split(",")}
    barcode = row["Sample ID"].split(",")[0].strip()
    if len(cases) > 1 or not barcode or "" in cases:
        found = f"case '{row['Case ID']}', sample '{row['Sample ID']}'"
        raise FaultError.of("sample-without-id", where, found, "one case and its samples")
    path = folder / row["File ID"] / row["File Name"]
    if not os.path.exists(path) and os.path.exists(folder / row["File Name"]):
        path = folder / row["File Name"]
    kind = row.get("Sample Type") or row.get("Tissue Type") or ""
    descriptor = "" if row.get("Sample Type") else row.get("Tumor Descriptor") or ""
    words = (kind.split(",")[0].strip(), descriptor.split(",")[0].strip())
    return make_sample(barcode, path, sample_types, case_id=cases.pop(), words=words)


@dataclass(frozen=True)
class _Values:
    """What a worker sends back: a digest instead of 60,000 gene ids."""

    digest: bytes = b""
    values: np.ndarray | None = None
    gene_model: str | None = None
    summary: tuple[str, ...] = ()


def _read_one(column: str, path: Path) -> Read[_Values]:
    try:
        file = read_gdc_file(path, column)
    except FaultError as error:
        return Read(_Values(), error.faults)
    with np.errstate(over="ignore"):  # infinite values are reported by later checks
        values = file.values.astype(np.float32)
    return Read(_Values(file.digest(), values, file.gene_model, file.summary))


def _load(
    folder: Path, column: str, workers: int | None, samples: list[Sample]
) -> Read[Expression]:
    from tqdm import tqdm

    paths = [sample.path for sample in samples]
    reads = parallel_map(partial(_read_one, column), paths, workers)
    bar = tqdm(reads, "reading RNA", len(paths), unit="file", delay=1, disable=None)
    files, faults = [], []
    for read in bar:
        files.append(read.value)
        faults += read.faults
    digests = [file.digest for file in files]
    counts = Counter(digest for digest in digests if digest)
    if not counts:
        return Read(Expression(np.zeros((len(samples), 0), np.float32), []), tuple(faults))
    # The gene list of most files is taken as the right one, so that a damaged file cannot set it.
    usual = counts.most_common(1)[0][0]
    first = digests.index(usual)
    facts, genes = {"gene_model": files[first].gene_model}, read_gene_rows(paths[first])
    dropped = [drop_row(name, "", SUMMARY_REASON, folder) for name in files[first].summary]
    ids = [row["gene_id"] for row in genes]
    faults += gene_faults(paths[first], ids)
    for path, digest in zip(paths, digests, strict=True):
        if digest and digest != usual:
            expected = f"the {len(ids)} genes of {paths[first].name} in that order"
            found = _difference([row["gene_id"] for row in read_gene_rows(path)], ids)
            faults.append(Fault("gene-list", str(path), found, expected))
    values = np.zeros((len(samples), len(genes)), np.float32)
    for row, file in enumerate(files):
        if file.digest == usual:
            values[row] = file.values
        files[row] = None  # freed at once: there is memory for one copy of a large cohort
    expression = Expression(values, genes, dropped_genes=dropped, provenance=facts)
    return Read(expression, tuple(faults))


def _difference(found: Sequence[str], expected: Sequence[str]) -> str:
    notes = [f"with {gene}" for gene in sorted(set(found) - set(expected))[:1]]
    notes += [f"without {gene}" for gene in sorted(set(expected) - set(found))[:1]]
    return f"{len(found)} genes, {', '.join(notes) or 'in another order'}"
