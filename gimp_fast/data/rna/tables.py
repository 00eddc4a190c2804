"""Tables of many samples: genes in rows (Xena) or samples in rows (MCAT, and plain tables)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from gimp_fast.data.rna.cbioportal import is_cbioportal, load_cbioportal, value_columns
from gimp_fast.data.rna.files import gene_row
from gimp_fast.data.rna.grid import Grid, open_grid
from gimp_fast.data.rna.orientation import (
    CASE_COLUMNS,
    RNA_SUFFIX,
    SAMPLE_COLUMNS,
    SAMPLES_IN_ROWS,
    find_orientation,
    id_column,
)
from gimp_fast.data.rna.samples import Sample, make_sample
from gimp_fast.data.rna.source import ExpressionSource, Loaded, drop_row, gene_faults
from gimp_fast.errors import Fault, FaultError
from gimp_fast.files.number_text import SUMMARY_REASON, is_summary

# Columns beside the first that describe genes, in lower case.
_GENE_NAMES = ("gene_name", "gene_symbol", "hugo_symbol", "symbol")
_GENE_TYPES = ("gene_type", "gene_biotype", "biotype")
# Columns of patients that stand among genes in tables of others. As written here: genes have
# capital letters. Anything else that is no gene is left to the user, who knows what it is.
_CLINICAL = {
    *("age", "gender", "sex", "race", "ethnicity", "is_female", "project", "project_id", "cohort"),
    *("oncotree_code", "oncotree_site", "site", "stage", "grade", "sample_type", "tissue_type"),
    *("survival", "survival_months", "survival_days", "censorship", "event", "status"),
    *("os", "os_months", "os_status", "dss", "dfi", "pfi"),
    *("label", "subtype", "fold", "split", "train"),
}
_UNNAMED = ("", "Unnamed: 0", "index")  # an index that was written along, if first


def open_table(
    path: Path, orientation: str, known_cases: Collection[str], sample_types: tuple[str, ...]
) -> ExpressionSource:
    """List the samples of a table; see ``open_expression``."""
    grid = open_grid(path)
    if find_orientation(grid, orientation, known_cases) == SAMPLES_IN_ROWS:
        return _open_rows(grid, sample_types)
    return _open_columns(grid, sample_types)


def _open_columns(grid: Grid, sample_types: tuple[str, ...]) -> ExpressionSource:
    cbioportal = is_cbioportal(grid.header)
    columns = value_columns(grid.header) if cbioportal else _sample_columns(grid.header)
    names = [grid.header[n] for n in columns]
    repeated = [name for name, count in Counter(names).items() if count > 1 and name]
    if repeated:
        found = f"column '{repeated[0]}' more than once"
        raise FaultError.of("duplicate-sample", grid.path, found, "each sample once")
    if "" in names:
        found = f"column {columns[names.index('')] + 1} without a name"
        raise FaultError.of(
            "sample-without-id", grid.path, found, "a sample's name over every column"
        )
    if not names:
        raise FaultError.of(
            "no-samples", grid.path, f"columns {grid.header}", "one column a sample"
        )
    samples = tuple(make_sample(name, grid.path, sample_types) for name in names)
    load = partial(load_cbioportal if cbioportal else _load_columns, grid)
    if cbioportal:
        unit = "as in cBioPortal's file"
        return ExpressionSource("cbioportal", (grid.path,), None, samples, load, unit)
    return ExpressionSource("matrix", (grid.path,), None, samples, load)


def _sample_columns(header: Sequence[str]) -> list[int]:
    about_genes = (*_GENE_NAMES, *_GENE_TYPES)
    return [n for n in range(1, len(header)) if header[n].lower() not in about_genes]


def _load_columns(grid: Grid, samples: list[Sample]) -> Loaded:
    wanted = [grid.header.index(sample.barcode, 1) for sample in samples]
    lower = [name.lower() for name in grid.header]
    about = [
        next((lower.index(name, 1) for name in names if name in lower[1:]), None)
        for names in (_GENE_NAMES, _GENE_TYPES)
    ]
    block = grid.read([0, *(n for n in about if n is not None)], wanted)
    genes, kept, dropped = [], [], []
    for place, (gene_id, *more) in enumerate(block.texts):
        if is_summary(gene_id):
            dropped.append(drop_row(gene_id, "", SUMMARY_REASON, grid.path))
            continue
        cells = iter(more)
        genes.append(gene_row(gene_id, *(next(cells) if n is not None else "" for n in about)))
        kept.append(place)
    values = block.values if not dropped else block.values[kept]
    faults = gene_faults(grid.path, [row["gene_id"] for row in genes])
    return Loaded(np.ascontiguousarray(values.T), genes, faults, dropped)


@dataclass(frozen=True)
class _Columns:
    """Places of the columns of a table with samples in rows."""

    sample: int
    case: int | None
    genes: list[int]
    ignored: list[int]
    mcat: bool


def _open_rows(grid: Grid, sample_types: tuple[str, ...]) -> ExpressionSource:
    columns = _find_columns(grid)
    block = grid.texts([columns.sample, columns.sample if columns.case is None else columns.case])
    rows_of: dict[str, list[int]] = {}
    case_by: dict[str, str] = {}
    for row, (sample, case) in zip(block.rows, block.texts, strict=True):
        where = f"{grid.path} row {row}"
        if not sample or not case:
            raise FaultError.of(
                "sample-without-id", where, "an empty id", "the id of a sample or patient"
            )
        if case_by.setdefault(sample, case) != case:
            found = f"sample '{sample}' of patient '{case}', above of '{case_by[sample]}'"
            raise FaultError.of("duplicate-sample", where, found, "each sample of one patient")
        rows_of.setdefault(sample, []).append(row)
    if not rows_of:
        raise FaultError.of("no-samples", grid.path, "a header without rows", "one row a sample")
    samples = tuple(
        make_sample(sample, grid.path, sample_types, case_id=case)
        for sample, case in case_by.items()
    )
    load = partial(_load_rows, grid, columns, rows_of)
    if columns.mcat:
        return ExpressionSource("mcat", (grid.path,), None, samples, load, "MCAT's z-scores")
    return ExpressionSource("table", (grid.path,), None, samples, load)


def _find_columns(grid: Grid) -> _Columns:
    header = grid.header
    mcat = any(name.endswith(RNA_SUFFIX) for name in header)
    case = id_column(header, CASE_COLUMNS)
    # MCAT has one row a slide, but RNA is a patient's.
    preferred = CASE_COLUMNS if mcat else (*SAMPLE_COLUMNS, *CASE_COLUMNS)
    sample = id_column(header, (*preferred, *SAMPLE_COLUMNS, "slide_id", "slide")) or 0
    if mcat:
        genes = [n for n, name in enumerate(header) if name.endswith(RNA_SUFFIX)]
    else:
        genes = [n for n, name in enumerate(header) if n != sample and not _no_gene(n, name)]
    used = {sample, case, *genes}
    ignored = [n for n in range(len(header)) if n not in used]
    return _Columns(sample, case, genes, ignored, mcat)


def _no_gene(place: int, name: str) -> bool:
    ids = (*CASE_COLUMNS, *SAMPLE_COLUMNS, "slide_id", "slide")
    return name in ids or name in _CLINICAL or (place == 0 and name in _UNNAMED)


def _load_rows(
    grid: Grid, columns: _Columns, rows_of: dict[str, list[int]], samples: list[Sample]
) -> Loaded:
    wanted = {row for sample in samples for row in rows_of[sample.barcode]}
    block = grid.read([columns.sample], columns.genes, wanted)
    place_of = {row: place for place, row in enumerate(block.rows)}
    if place_of.keys() != wanted:
        expected = "a table that stays as it was when it was opened"
        raise FaultError.of("unreadable-file", grid.path, "rows that are gone", expected)
    faults, places = [], []
    for sample in samples:
        first, *others = rows_of[sample.barcode]
        places.append(place_of[first])
        for row in others:
            values = block.values[[place_of[first], place_of[row]]]
            faults += _conflict(grid, columns, sample, (first, row), values)
    names = [grid.header[n].removesuffix(RNA_SUFFIX if columns.mcat else "") for n in columns.genes]
    faults += gene_faults(grid.path, names)
    genes = [gene_row(name) for name in names]
    ignored = [grid.header[n] for n in columns.ignored]
    # indexing by a list copies: the block may be given away
    return Loaded(block.values[places], genes, faults, facts={"ignored_columns": ignored})


def _conflict(
    grid: Grid, columns: _Columns, sample: Sample, rows: tuple[int, int], values: np.ndarray
) -> list[Fault]:
    """A fault if two rows of one sample differ."""
    if np.array_equal(values[0], values[1], equal_nan=True):
        return []
    differs = np.flatnonzero(~((values[0] == values[1]) | np.isnan(values).all(axis=0)))[0]
    name = grid.header[columns.genes[differs]]
    found = f"'{sample.barcode}' in rows {rows[0]} and {rows[1]} with other values of '{name}'"
    expected = "the same RNA in all rows of a sample"
    return [Fault("duplicate-sample", str(grid.path), found, expected)]
