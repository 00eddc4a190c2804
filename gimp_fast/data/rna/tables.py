"""Tables of many samples: genes in rows (Xena) or samples in rows (MCAT, and plain tables)."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from gimp_fast.data.names import (
    GENES_IN_ROWS,
    PATIENT_COLUMNS,
    SAMPLE_BARCODE,
    SAMPLES_IN_ROWS,
    patient_of_sample,
)
from gimp_fast.data.rna.cbioportal import GENE_COLUMNS, is_cbioportal, load_cbioportal
from gimp_fast.data.rna.samples import Sample, make_sample
from gimp_fast.data.rna.source import (
    SUMMARY_REASON,
    Expression,
    ExpressionSource,
    check_genes,
    drop_row,
    gene_row,
    is_summary,
)
from gimp_fast.errors import FaultError, Faults, Read
from gimp_fast.files.parquet import ParquetTable
from gimp_fast.files.table import Table, open_table

AnyTable = Table | ParquetTable
_SAMPLE_COLUMNS = ("barcode", "sample_id", "sample")
_SLIDE_COLUMNS = ("slide_id", "slide")
_ABOVE_GENES = {"ensembl_id", "gene_id", "gene", "gene_name", "hugo_symbol", "entrez_gene_id", "id"}
_ENSEMBL = re.compile(r"ENS[A-Z]*G\d{11}(?:\.\d+)?(?:_PAR_Y)?")
_RNA_SUFFIX = "_rnaseq"
_PEEK = 1000  # rows looked at to find the orientation
# Columns beside the first that describe genes, in lower case; the first of a kind counts.
_ABOUT_GENES = {
    "gene_name": ("gene_name", "gene_symbol", "hugo_symbol", "symbol"),
    "gene_type": ("gene_type", "gene_biotype", "biotype"),
}
# Columns of patient facts that tables have among the genes, in lower case only: genes have capital
# letters. Any other column that is not a gene is reported as text among numbers.
_CLINICAL = {
    *("age", "gender", "sex", "race", "ethnicity", "is_female", "project", "project_id", "cohort"),
    *("oncotree_code", "oncotree_site", "site", "stage", "grade", "sample_type", "tissue_type"),
    *("survival", "survival_months", "survival_days", "censorship", "event", "status"),
    *("os", "os_months", "os_status", "dss", "dfi", "pfi"),
    *("label", "subtype", "fold", "split", "train"),
}
_UNNAMED = ("", "Unnamed: 0", "index")  # the index of a data frame, if it comes first


def open_matrix(
    path: Path, orientation: str, known_cases: Collection[str], sample_types: tuple[str, ...]
) -> ExpressionSource:
    """List the samples of a table; see ``open_expression``."""
    table = _open(path)
    if find_orientation(table, orientation, known_cases) == SAMPLES_IN_ROWS:
        return _open_rows(table, sample_types)
    return _open_columns(table, sample_types)


def _open(path: Path) -> AnyTable:
    if path.suffix.lower() in (".parquet", ".pq"):
        table, layout = ParquetTable(path), ""
    else:
        commas = path.name.lower().removesuffix(".gz").endswith(".csv")
        layout = f" ({'commas' if commas else 'tabs'} between them)"
        delimiter = "," if commas else "\t"
        table = open_table(path, delimiter, exact=True, whole=True, expected="a table")
    header = " ".join(table.header)
    if header.startswith("# gene-model"):
        expected = "its folder, with gdc_sample_sheet.tsv: the file holds a single sample"
        raise FaultError.of("single-sample", path, "a GDC STAR file", expected)
    if len(table.header) < 2:
        expected = f"a column of ids, then one column per sample or gene{layout}"
        raise FaultError.of("no-samples", path, f"header '{header[:60]}'", expected)
    return table


def find_orientation(table: AnyTable, asked: str, known_cases: Collection[str]) -> str:
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
    place = _id_column(header, (*PATIENT_COLUMNS, *_SAMPLE_COLUMNS)) or 0
    rows = [ids[0] for ids in table.read([place], limit=_PEEK).texts]
    known = frozenset(known_cases)
    votes: float = _known(rows, known) - _known(header[1:], known)
    votes = votes or _looks_like_samples(rows) - _looks_like_samples(header[1:])
    if votes:
        return SAMPLES_IN_ROWS if votes > 0 else GENES_IN_ROWS
    first = header[0]
    if first.lower() in _ABOVE_GENES:
        return GENES_IN_ROWS
    above_samples = {*PATIENT_COLUMNS, *_SAMPLE_COLUMNS, *_SLIDE_COLUMNS} - {"sample"}
    if first in above_samples or (first in ("", "Unnamed: 0") and place):
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


def _open_columns(table: AnyTable, sample_types: tuple[str, ...]) -> ExpressionSource:
    header = table.header
    if cbioportal := is_cbioportal(header):
        columns = [n for n, name in enumerate(header) if name not in GENE_COLUMNS]
    else:
        about_genes = {name for names in _ABOUT_GENES.values() for name in names}
        columns = [n for n in range(1, len(header)) if header[n].lower() not in about_genes]
    names = [header[n] for n in columns]
    repeated = [name for name, count in Counter(names).items() if count > 1 and name]
    if repeated:
        found = f"column '{repeated[0]}' more than once"
        raise FaultError.of("duplicate-sample", table.path, found, "each sample once")
    if "" in names:
        found = f"column {columns[names.index('')] + 1} without a name"
        expected = "the name of a sample above every column"
        raise FaultError.of("sample-without-id", table.path, found, expected)
    if not names:
        found = f"columns {', '.join(header)}"
        raise FaultError.of("no-samples", table.path, found, "one column per sample")
    samples = tuple(make_sample(name, table.path, sample_types) for name in names)
    if cbioportal:
        load, unit = partial(load_cbioportal, table), "as in cBioPortal's file"
        return ExpressionSource("cbioportal", (table.path,), samples, load, unit)
    return ExpressionSource("matrix", (table.path,), samples, partial(_load_columns, table))


def _load_columns(table: AnyTable, samples: list[Sample]) -> Read[Expression]:
    wanted = [table.header.index(sample.barcode, 1) for sample in samples]
    lower = [name.lower() for name in table.header]
    about = {
        column: lower.index(name, 1)
        for column, names in _ABOUT_GENES.items()
        for name in reversed(names)
        if name in lower[1:]
    }
    block = table.read([0, *about.values()], wanted)
    genes, kept, dropped = [], [], []
    for place, (gene_id, *more) in enumerate(block.texts):
        if is_summary(gene_id):
            dropped.append(drop_row(gene_id, "", SUMMARY_REASON, table.path))
        else:
            genes.append(gene_row(gene_id, **dict(zip(about, more, strict=True))))
            kept.append(place)
    values = block.values[kept] if dropped else block.values
    expression = Expression(np.ascontiguousarray(values.T), genes, dropped_genes=dropped)
    return Read(expression, check_genes(table.path, genes))


def _open_rows(table: AnyTable, sample_types: tuple[str, ...]) -> ExpressionSource:
    header = table.header
    mcat = any(name.endswith(_RNA_SUFFIX) for name in header)
    case = _id_column(header, PATIENT_COLUMNS)
    # MCAT has one row per slide, but RNA belongs to the patient.
    preferred = PATIENT_COLUMNS if mcat else (*_SAMPLE_COLUMNS, *PATIENT_COLUMNS)
    sample = _id_column(header, (*preferred, *_SAMPLE_COLUMNS, *_SLIDE_COLUMNS)) or 0
    block = table.read([sample, sample if case is None else case])
    rows_of: dict[str, list[int]] = defaultdict(list)
    case_of: dict[str, str] = {}
    for row, (id, owner) in zip(block.rows, block.texts, strict=True):
        where = f"{table.path} row {row}"
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
        genes = [n for n, name in enumerate(header) if n != sample and not _no_gene(n, name)]
    ignored = [name for n, name in enumerate(header) if n not in {sample, case, *genes}]
    load = partial(_load_rows, table, genes, ignored, rows_of)
    if mcat:
        return ExpressionSource("mcat", (table.path,), samples, load, "MCAT's z-scores")
    return ExpressionSource("table", (table.path,), samples, load)


def _no_gene(place: int, name: str) -> bool:
    ids = (*PATIENT_COLUMNS, *_SAMPLE_COLUMNS, *_SLIDE_COLUMNS)
    return name in ids or name in _CLINICAL or (place == 0 and name in _UNNAMED)


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
    faults.items += check_genes(table.path, genes)
    # Indexing by a list copies: the caller may change the values.
    values = block.values[[place_of[rows_of[sample.barcode][0]] for sample in samples]]
    return faults.read(Expression(values, genes, provenance={"ignored_columns": ignored}))
