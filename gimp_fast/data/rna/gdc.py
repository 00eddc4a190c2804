"""A GDC download: a folder of expression files and the sample sheet that lists their patients."""

from __future__ import annotations

import os
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from gimp_fast.data.names import RNA_COLUMNS
from gimp_fast.data.rna.gdc_files import STAR_SUFFIX, GdcFile, read_gdc_file, read_gene_rows
from gimp_fast.data.rna.samples import Sample, make_sample
from gimp_fast.data.rna.source import ExpressionSource
from gimp_fast.data.rna.values import SUMMARY_REASON, Expression, GeneRows, drop_row
from gimp_fast.errors import FaultError, Faults, Read
from gimp_fast.files.paths import path_inside
from gimp_fast.files.progress import progress
from gimp_fast.files.table import open_table
from gimp_fast.tasks.mapping import FEWEST, parallel_map

_SHEET_COLUMNS = ("File ID", "File Name", "Case ID", "Sample ID")
# Of the sample: the first in older sheets, the others in newer ones.
_TYPE_COLUMNS = ("Sample Type", "Tissue Type", "Tumor Descriptor")


def open_gdc(
    folder: Path,
    sheet: Path | None,
    column: str,
    sample_types: tuple[str, ...],
    workers: int | None,
    scheduler: str | None = None,
) -> ExpressionSource:
    """List the expression files that the sample sheet names; see ``open_expression``."""
    sheet = sheet or _find_sheet(folder)
    # A portal may leave the last line open: a row that was cut has too few cells.
    table = open_table(sheet, exact=True, expected="a GDC sample sheet")
    columns = (*_SHEET_COLUMNS, *(name for name in _TYPE_COLUMNS if name in table.header))
    rows = [dict(zip(("where", *columns), row, strict=True)) for row in table.rows(*columns)]
    endings = [ending for ending in (STAR_SUFFIX, RNA_COLUMNS[column]) if ending]
    suffixes = tuple(ending + gz for ending in endings for gz in ("", ".gz"))
    samples: dict[str, Sample] = {}
    for row in rows:
        name = row["File Name"]
        # The same sheet may list slide images and other expression units.
        if not name.endswith(suffixes):
            continue
        if name in samples:
            raise FaultError.of("duplicate-file", row["where"], f"'{name}' again", "each file once")
        samples[name] = _sheet_sample(folder, row, sample_types)
    if not samples:
        found = f"{len(rows)} rows, none naming a file *{' or *'.join(suffixes)}"
        raise FaultError.of("no-samples", sheet, found, "files of gene expression")
    load = partial(_load, folder, column, workers, scheduler)
    return ExpressionSource("gdc", (folder,), tuple(samples.values()), load, column, column)


def _find_sheet(folder: Path) -> Path:
    sheets = sorted(folder.glob("gdc_sample_sheet*.tsv"))
    if len(sheets) != 1:
        names = ", ".join(sheet.name for sheet in sheets) or "none"
        expected = "one gdc_sample_sheet*.tsv there, or --sample-sheet"
        raise FaultError.of("sample-sheet", folder, names, expected)
    return sheets[0]


def _sheet_sample(folder: Path, row: dict[str, str], sample_types: tuple[str, ...]) -> Sample:
    # GDC repeats ids and types, separated by commas, if a file covers several portions.
    cases = {case.strip() for case in row["Case ID"].split(",")}
    barcode = row["Sample ID"].split(",")[0].strip()
    if len(cases) > 1 or not barcode or "" in cases:
        found = f"case '{row['Case ID']}', sample '{row['Sample ID']}'"
        raise FaultError.of("sample-without-id", row["where"], found, "one case and its samples")
    flat = path_inside(folder, row["File Name"], row["where"])
    path = path_inside(folder, f"{row['File ID']}/{row['File Name']}", row["where"])
    if not os.path.exists(path) and os.path.exists(flat):
        path = flat
    kind = row.get("Sample Type") or row.get("Tissue Type") or ""
    descriptor = "" if row.get("Sample Type") else row.get("Tumor Descriptor") or ""
    words = (kind.split(",")[0].strip(), descriptor.split(",")[0].strip())
    return make_sample(barcode, path, sample_types, case_id=cases.pop(), words=words)


def _read_one(column: str, path: Path) -> Read[GdcFile | None]:
    try:
        return Read(read_gdc_file(path, column))
    except FaultError as error:
        return Read(None, error.faults)


def _load(
    folder: Path,
    column: str,
    workers: int | None,
    scheduler: str | None,
    samples: list[Sample],
) -> Read[Expression]:
    faults = Faults()
    paths = [sample.path for sample in samples]
    reads = parallel_map(partial(_read_one, column), paths, workers, scheduler)
    shown = len(paths) >= FEWEST  # fewer take no time
    reads = progress(reads, "reading RNA", len(paths), "file", shown=shown)
    files = [faults.take(read) for read in reads]
    counts = Counter(file.digest for file in files if file)
    if not counts:
        return faults.read(Expression(np.zeros((len(samples), 0), np.float32), []))
    # The gene list of most files is taken as the right one, so that a damaged file cannot set it.
    usual = counts.most_common(1)[0][0]
    first = next(n for n, file in enumerate(files) if file and file.digest == usual)
    facts, genes = {"gene_model": files[first].gene_model}, read_gene_rows(paths[first])
    dropped = [drop_row(name, "", SUMMARY_REASON, folder) for name in files[first].summary]
    values = np.zeros((len(samples), len(genes)), np.float32)
    for n, (path, file) in enumerate(zip(paths, files, strict=True)):
        if file and file.digest == usual:
            values[n] = file.values
        elif file:
            expected = f"the {len(genes)} genes of {paths[first].name} in that order"
            faults.add("gene-list", path, _difference(read_gene_rows(path), genes), expected)
        files[n] = None  # freed at once: there is memory for one copy of a large cohort
    return faults.read(Expression(values, genes, dropped_genes=dropped, provenance=facts))


def _difference(found: GeneRows, expected: GeneRows) -> str:
    here, there = ({row["gene_id"] for row in rows} for rows in (found, expected))
    notes = [f"with {gene}" for gene in sorted(here - there)[:1]]
    notes += [f"without {gene}" for gene in sorted(there - here)[:1]]
    return f"{len(found)} genes, {', '.join(notes) or 'in another order'}"
