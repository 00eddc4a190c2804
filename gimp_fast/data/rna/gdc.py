"""A GDC download: a folder of expression files, and the sample sheet that says whose they are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from gimp_fast.data.rna.files import STAR_SUFFIX, read_gdc_file, read_gene_rows
from gimp_fast.data.rna.samples import Sample, make_sample
from gimp_fast.data.rna.source import ExpressionSource, Loaded, drop_row, gene_faults
from gimp_fast.errors import Fault, FaultError
from gimp_fast.files.number_text import SUMMARY_REASON, decode, read_lines, split_cells
from gimp_fast.files.parallel import parallel_map

# Unit -> suffix of the two-column files that GDC gave out before 2022.
RNA_COLUMNS = {
    "fpkm_unstranded": ".FPKM.txt",
    "fpkm_uq_unstranded": ".FPKM-UQ.txt",
    "tpm_unstranded": None,
    "unstranded": ".htseq.counts",
}
_SHEET_COLUMNS = ("File ID", "File Name", "Case ID", "Sample ID")


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
    """(where, column -> cell) of each row; FaultError if one has not the header's cells."""
    rows: list[tuple[str, dict[str, str]]] = []
    header: list[str] = []
    # A portal need not end the last line; a row cut short has too few cells, or a type unknown.
    for number, line in read_lines(sheet, "a GDC sample sheet", whole_lines=False):
        where = f"{sheet} row {number}"
        cells = [decode(cell, where) for cell in split_cells(line, "\t", where)]
        if not header:
            header = cells
            continue
        if not any(cells):
            continue
        if len(cells) != len(header):
            expected = f"{len(header)} as in the header"
            raise FaultError.of("row-length", where, f"{len(cells)} cells", expected)
        rows.append((where, dict(zip(header, cells, strict=True))))
    missing = [name for name in _SHEET_COLUMNS if name not in header]
    if missing:
        raise FaultError.of(
            "missing-column", sheet, f"no column {missing}", f"{list(_SHEET_COLUMNS)}"
        )
    return rows


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
class _Read:
    """What a worker sends back: the digest stands for a list of 60,000 gene ids."""

    digest: bytes = b""
    values: np.ndarray | None = None
    gene_model: str | None = None
    summary: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()


def _read_one(column: str, path: Path) -> _Read:
    try:
        file = read_gdc_file(path, column)
    except FaultError as error:
        return _Read(faults=error.faults)
    with np.errstate(over="ignore"):  # infinity is a fault further on
        values = file.values.astype(np.float32)
    return _Read(file.digest(), values, file.gene_model, file.summary)


@dataclass
class _Table:
    """Values of all samples, and the gene list of each.

    Attributes:
        values: (n, G) float32, G being the length of the first list that was read.
        odd: rows whose list is of another length; they stand apart.
    """

    num_samples: int
    values: np.ndarray | None = None
    odd: dict[int, np.ndarray] = field(default_factory=dict)
    digests: list[bytes] = field(default_factory=list)

    def add(self, row: int, read: _Read) -> None:
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
        """(n, G) float32; rows with another list, or none, are zero."""
        if self.values is None or self.values.shape[1] != num_genes:
            self.values = np.zeros((self.num_samples, num_genes), np.float32)
        for row, found in enumerate(self.digests):
            if found != digest:
                self.values[row] = 0
            elif row in self.odd:
                self.values[row] = self.odd[row]
        return self.values


def _load(folder: Path, column: str, workers: int | None, samples: list[Sample]) -> Loaded:
    from tqdm import tqdm

    paths = [sample.path for sample in samples]
    table, faults, first = _Table(len(samples)), [], {}
    reads = parallel_map(partial(_read_one, column), paths, workers)
    bar = tqdm(reads, "reading RNA", len(paths), unit="file", delay=1, disable=None)
    for row, read in enumerate(bar):
        faults += read.faults
        table.add(row, read)
        if not read.faults:
            first.setdefault(read.digest, (paths[row], read.gene_model, read.summary))
    if not first:
        return Loaded(np.zeros((len(samples), 0), np.float32), [], faults)
    # The list that most files have is the right one; a damaged file must not set it.
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
    values = table.of_list(usual, len(genes))
    return Loaded(values, genes, faults, dropped, {"gene_model": model})


def _difference(found: Sequence[str], expected: Sequence[str]) -> str:
    notes = [f"with {gene}" for gene in sorted(set(found) - set(expected))[:1]]
    notes += [f"without {gene}" for gene in sorted(set(expected) - set(found))[:1]]
    return f"{len(found)} genes, {', '.join(notes) or 'in another order'}"
