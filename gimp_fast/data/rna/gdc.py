"""A GDC download: a folder of expression files and the sample sheet that lists their patients."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
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
            raise FaultError.of(
                "duplicate-file", where, f"'{row['File Name']}' again", "each file once"
            )
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
    # GDC repeats ids and types, separated by commas, where a file covers several portions.
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


@dataclass
class _Table:
    """Values of all samples, and the gene list of each.

    Attributes:
        values: (n, G) float32, G being the length of the first list that was read.
        odd: row -> values, where the list has another length.
    """

    num_samples: int
    values: np.ndarray | None = None
    odd: dict[int, np.ndarray] = field(default_factory=dict)
    digests: list[bytes] = field(default_factory=list)

    def add(self, row: int, read: _Values) -> None:
        self.digests.append(read.digest)
        if read.values is None:
            return
        if self.values is None:
            self.values = np.zeros((self.num_samples, len(read.values)), np.float32)
        if len(read.values) == self.values.shape[1]:
            self.values[row] = read.values
        else:
            self.odd[row] = read.values

    def of_list(self, digest: bytes, num_genes: int) -> np.ndarray:
        """(n, G) float32; rows whose file has another gene list, or none, are zero."""
        if self.values is None or self.values.shape[1] != num_genes:
            self.values = np.zeros((self.num_samples, num_genes), np.float32)
        for row, found in enumerate(self.digests):
            if found != digest:
                self.values[row] = 0
            elif row in self.odd:
                self.values[row] = self.odd[row]
        return self.values


def _load(
    folder: Path, column: str, workers: int | None, samples: list[Sample]
) -> Read[Expression]:
    from tqdm import tqdm

    paths = [sample.path for sample in samples]
    table, faults, first = _Table(len(samples)), [], {}
    reads = parallel_map(partial(_read_one, column), paths, workers)
    bar = tqdm(reads, "reading RNA", len(paths), unit="file", delay=1, disable=None)
    for row, read in enumerate(bar):
        faults += read.faults
        table.add(row, read.value)
        if not read.faults:
            facts = paths[row], read.value.gene_model, read.value.summary
            first.setdefault(read.value.digest, facts)
    if not first:
        return Read(Expression(np.zeros((len(samples), 0), np.float32), []), tuple(faults))
    # The gene list of most files is taken as the right one, so that a damaged file cannot set it.
    counts = Counter(digest for digest in table.digests if digest)
    usual = counts.most_common(1)[0][0]
    typical, model, summary = first[usual]
    genes = read_gene_rows(typical)
    ids = [row["gene_id"] for row in genes]
    faults += gene_faults(typical, ids)
    for path, digest in zip(paths, table.digests, strict=True):
        if digest and digest != usual:
            expected = f"the {len(ids)} genes of {typical.name} in that order"
            found = _difference([row["gene_id"] for row in read_gene_rows(path)], ids)
            faults.append(Fault("gene-list", str(path), found, expected))
    dropped = [drop_row(name, "", SUMMARY_REASON, folder) for name in summary]
    expression = Expression(
        table.of_list(usual, len(genes)),
        genes,
        dropped_genes=dropped,
        provenance={"gene_model": model},
    )
    return Read(expression, tuple(faults))


def _difference(found: Sequence[str], expected: Sequence[str]) -> str:
    notes = [f"with {gene}" for gene in sorted(set(found) - set(expected))[:1]]
    notes += [f"without {gene}" for gene in sorted(set(expected) - set(found))[:1]]
    return f"{len(found)} genes, {', '.join(notes) or 'in another order'}"
