"""Tables of many samples: genes in rows (Xena) or samples in rows (MCAT, and plain tables)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from gimp_fast.data.names import (
    GENES_IN_ROWS,
    PATIENT_COLUMNS,
    RNA_COLUMNS,
    SAMPLE_BARCODE,
    SAMPLES_IN_ROWS,
    patient_of_sample,
)
from gimp_fast.data.rna.cbioportal import GENE_COLUMNS, is_cbioportal, load_cbioportal
from gimp_fast.data.rna.columns import (
    CORNERS,
    SAMPLE_COLUMNS,
    SLIDE_COLUMNS,
    UNNAMED,
    about_genes,
    gene_column,
    gene_facts,
    is_above_genes,
    is_no_gene,
    sample_name,
)
from gimp_fast.data.rna.gdc_files import STAR_NAMES
from gimp_fast.data.rna.samples import Sample, make_sample
from gimp_fast.data.rna.source import ExpressionSource
from gimp_fast.data.rna.values import (
    SUMMARY_REASON,
    Expression,
    drop_row,
    gene_row,
    is_summary,
)
from gimp_fast.errors import FaultError, Faults, Read
from gimp_fast.files.parquet import ParquetTable, is_parquet
from gimp_fast.files.table import Table, open_table

AnyTable = Table | ParquetTable
_ENSEMBL = re.compile(r"ENS[A-Z]*G\d{11}(?:\.\d+)?(?:_PAR_Y)?")
_RNA_SUFFIX = "_rnaseq"
_PEEK = 1000  # rows looked at to find the orientation


def open_matrix(
    path: Path, orientation: str, known_cases: Collection[str], sample_types: tuple[str, ...]
) -> ExpressionSource:
    """List the samples of a table; see ``open_expression``."""
    table, known = _open(path), frozenset(known_cases)
    if find_orientation(table, orientation, known) == SAMPLES_IN_ROWS:
        return _open_rows(table, sample_types, known)
    return _open_columns(table, sample_types, known)


def _open(path: Path) -> AnyTable:
    if is_parquet(path):
        table: AnyTable = ParquetTable(path)
    else:
        table = open_table(path, exact=True, whole=True, expected="a table", corners=CORNERS)
    header = table.header
    if set(STAR_NAMES) < set(header) and set(RNA_COLUMNS) & set(header):
        expected = "its folder, with gdc_sample_sheet.tsv: the file holds a single sample"
        raise FaultError.of("single-sample", path, "a GDC STAR file", expected)
    if len(header) < 2:
        found = f"header '{' '.join(header)[:60]}'"
        expected = "a column of ids, then one column per sample or gene (tabs, commas or "
        expected += "semicolons between them)"
        raise FaultError.of("no-samples", path, found, expected)
    if _ENSEMBL.fullmatch(header[0]):
        found = f"a gene in the first row: '{header[0]}'"
        expected = "a header with the names of the samples above the values"
        raise FaultError.of("no-samples", path, found, expected)
    return table


def find_orientation(table: AnyTable, asked: str, known: Collection[str]) -> str:
    """What was asked for; for ``auto``, the first of these rules that decides.

    1. Columns whose names end in ``_rnaseq`` are genes.
    2. Samples are on the axis that has more of the known patients.
    3. Samples are on the axis whose names are TCGA barcodes, genes on that of Ensembl ids.
    4. The first header cell says what is below it. Xena writes ``sample`` above its genes, so that
       word decides nothing.
    5. Genes in rows.
    """
    if asked != "auto":
        return asked
    header = table.header
    if any(name.endswith(_RNA_SUFFIX) for name in header):
        return SAMPLES_IN_ROWS
    place = _id_column(header, (*PATIENT_COLUMNS, *SAMPLE_COLUMNS)) or gene_column(header)
    rows = [sample_name(ids[0], known) for ids in table.read([place], limit=_PEEK).texts]
    columns = [sample_name(name, known) for name in header[1:]]
    votes: float = _known(rows, known) - _known(columns, known)
    votes = votes or _looks_like_samples(rows) - _looks_like_samples(columns)
    if votes:
        return SAMPLES_IN_ROWS if votes > 0 else GENES_IN_ROWS
    first = header[0]
    if is_above_genes(first):
        return GENES_IN_ROWS
    above_samples = {*PATIENT_COLUMNS, *SAMPLE_COLUMNS, *SLIDE_COLUMNS} - {"sample"}
    if first in above_samples or (first in UNNAMED[:2] and header[place] in above_samples):
        return SAMPLES_IN_ROWS
    return GENES_IN_ROWS


def _id_column(header: Sequence[str], names: Sequence[str]) -> int | None:
    """Place of the first of these names that the header has."""
    return next((header.index(name) for name in names if name in header), None)


def _known(names: Sequence[str], known: Collection[str]) -> int:
    return sum(name in known or patient_of_sample(name) in known for name in names)


def _looks_like_samples(names: Sequence[str]) -> float:
    """Above 0 for barcodes, below 0 for Ensembl ids, 0 if neither are most of the names."""
    shares = [
        sum(pattern.fullmatch(name) is not None for name in names) / max(1, len(names))
        for pattern in (SAMPLE_BARCODE, _ENSEMBL)
    ]
    barcodes, genes = (share if share > 0.5 else 0.0 for share in shares)
    return barcodes - genes


def _open_columns(
    table: AnyTable, sample_types: tuple[str, ...], known: Collection[str]
) -> ExpressionSource:
    header = table.header
    cbioportal = is_cbioportal(header)
    ids = 0 if cbioportal else gene_column(header)
    facts = gene_facts(header, ids, known) | {ids}
    columns = [n for n in range(len(header)) if n not in facts]
    if unnamed := [n for n in columns if not header[n]]:
        found = f"column {unnamed[0] + 1} without a name"
        expected = "the name of a sample above every column"
        raise FaultError.of("sample-without-id", table.path, found, expected)
    column_of: dict[str, int] = {}
    for n in columns:
        name = sample_name(header[n], known)
        if column_of.setdefault(name, n) != n:
            again = f", as '{header[n]}'" if name != header[n] else ""
            found = f"column '{name}' more than once{again}"
            raise FaultError.of("duplicate-sample", table.path, found, "each sample once")
    if not columns:
        found = f"columns {', '.join(header)[:200]}"
        raise FaultError.of("no-samples", table.path, found, "one column per sample")
    samples = tuple(make_sample(name, table.path, sample_types) for name in column_of)
    about = about_genes(header, ids)
    used = {*GENE_COLUMNS} if cbioportal else {header[n] for n in about.values()}
    noted = {
        "ignored_columns": [header[n] for n in sorted(facts - {ids}) if header[n] not in used],
        "renamed_samples": {n: header[c] for n, c in column_of.items() if n != header[c]},
    }
    if cbioportal:
        load, unit = partial(load_cbioportal, table, column_of, noted), "as in cBioPortal's file"
        return ExpressionSource("cbioportal", (table.path,), samples, load, unit)
    load = partial(_load_columns, table, ids, about, column_of, noted)
    return ExpressionSource("matrix", (table.path,), samples, load)


def _load_columns(
    table: AnyTable,
    ids: int,
    about: dict[str, int],
    column_of: dict[str, int],
    noted: dict[str, object],
    samples: list[Sample],
) -> Read[Expression]:
    block = table.read([ids, *about.values()], [column_of[sample.barcode] for sample in samples])
    genes, kept, dropped = [], [], []
    for place, (gene_id, *more) in enumerate(block.texts):
        if is_summary(gene_id):
            dropped.append(drop_row(gene_id, "", SUMMARY_REASON, table.path))
        else:
            genes.append(gene_row(gene_id, **dict(zip(about, more, strict=True))))
            kept.append(place)
    values = block.values[kept] if dropped else block.values
    places = [f"row {block.rows[place]}" for place in kept]
    values = np.ascontiguousarray(values.T)
    return Read(Expression(values, genes, places=places, dropped_genes=dropped, provenance=noted))


def _open_rows(
    table: AnyTable, sample_types: tuple[str, ...], known: Collection[str]
) -> ExpressionSource:
    header = table.header
    mcat = any(name.endswith(_RNA_SUFFIX) for name in header)
    case = _id_column(header, PATIENT_COLUMNS)
    # MCAT has one row per slide, but RNA belongs to the patient.
    preferred = PATIENT_COLUMNS if mcat else (*SAMPLE_COLUMNS, *PATIENT_COLUMNS)
    sample = _id_column(header, (*preferred, *SAMPLE_COLUMNS, *SLIDE_COLUMNS)) or 0
    block = table.read([sample, sample if case is None else case])
    rows_of: dict[str, list[int]] = defaultdict(list)
    case_of: dict[str, str] = {}
    for row, texts in zip(block.rows, block.texts, strict=True):
        where = f"{table.path} row {row}"
        id, owner = (sample_name(text, known) for text in texts)
        if not id or not owner:
            expected = "the id of a sample or patient"
            raise FaultError.of("sample-without-id", where, "an empty id", expected)
        if case_of.setdefault(id, owner) != owner:
            found = f"sample '{id}' of patient '{owner}', above of '{case_of[id]}'"
            raise FaultError.of("duplicate-sample", where, found, "each sample of one patient")
        rows_of[id].append(row)
    if not rows_of:
        raise FaultError.of("no-samples", table.path, "a header without rows", "one row per sample")
    samples = tuple(
        make_sample(id, table.path, sample_types, case_id=owner) for id, owner in case_of.items()
    )
    if mcat:
        genes = [n for n, name in enumerate(header) if name.endswith(_RNA_SUFFIX)]
    else:
        genes = [n for n, name in enumerate(header) if n != sample and not is_no_gene(n, name)]
    ignored = [name for n, name in enumerate(header) if n not in {sample, case, *genes}]
    load = partial(_load_rows, table, genes, ignored, rows_of)
    if mcat:
        return ExpressionSource("mcat", (table.path,), samples, load, "MCAT's z-scores")
    return ExpressionSource("table", (table.path,), samples, load)


def _load_rows(
    table: AnyTable,
    columns: list[int],
    ignored: list[str],
    rows_of: dict[str, list[int]],
    samples: list[Sample],
) -> Read[Expression]:
    wanted = {row for sample in samples for row in rows_of[sample.barcode]}
    block = table.read([], columns, rows=wanted)
    place_of = {row: place for place, row in enumerate(block.rows)}
    if place_of.keys() != wanted:
        expected = "the table as it was when it was opened"
        raise FaultError.of("unreadable-file", table.path, "fewer rows", expected)
    names, faults = [table.header[n] for n in columns], Faults()
    for sample in samples:
        first, *others = rows_of[sample.barcode]
        values = block.values[place_of[first]]
        for row in others:
            again = block.values[place_of[row]]
            same = (values == again) | (np.isnan(values) & np.isnan(again))
            if not same.all():
                found = f"'{sample.barcode}' in rows {first} and {row} with other values of "
                found += f"'{names[same.argmin()]}'"
                expected = "the same RNA in all rows of a sample"
                faults.add("duplicate-sample", table.path, found, expected)
    genes = [gene_row(name.removesuffix(_RNA_SUFFIX)) for name in names]
    places = [f"column {n + 1}" for n in columns]
    if "" in names:  # a cell above a column of numbers, not a gene without a name among others
        found = f"{places[names.index('')]} without a name"
        faults.add("gene-without-id", table.path, found, "the name of a gene above every column")
    # Indexing by a list copies: the caller may change the values.
    values = block.values[[place_of[rows_of[sample.barcode][0]] for sample in samples]]
    facts = {"ignored_columns": ignored}
    return faults.read(Expression(values, genes, places=places, provenance=facts))
