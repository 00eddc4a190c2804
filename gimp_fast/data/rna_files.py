"""Readers of single RNA-seq files. Anything wrong with a file is a FaultError that names it."""

from __future__ import annotations

import csv
import gzip
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd

from gimp_fast.errors import Fault, FaultError

READ_ERRORS = (OSError, EOFError, ValueError, zlib.error, pd.errors.ParserError)


def read_star_counts(path: str | Path, column: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Read one GDC augmented STAR counts file (``.tsv`` or ``.tsv.gz``).

    Returns:
        genes (gene_id, gene_name, gene_type as text) and values (G,) float64; ``N_*`` rows left
        out.

    Raises:
        FaultError: unreadable, cut short, or without the column.
    """
    path = Path(path)
    names = ["gene_id", "gene_name", "gene_type"]
    _check_last_line(path)
    try:
        table = pd.read_csv(
            path,
            sep="\t",
            comment="#",
            usecols=[*names, column],
            dtype={**dict.fromkeys(names, "str"), column: "float64"},
            keep_default_na=False,
            na_values={column: ["", "NA", "nan", "NaN"]},
            quoting=csv.QUOTE_NONE,
        )
    except READ_ERRORS as error:
        raise table_fault(path, error, f"a STAR counts table with column '{column}'") from error
    table = table[~table["gene_id"].str.startswith("N_")]
    return table[names].reset_index(drop=True), table[column].to_numpy(np.float64)


def read_two_columns(path: str | Path) -> tuple[pd.DataFrame, np.ndarray]:
    """Read one old GDC file: gene id and value, no header; ``__*`` summary rows left out."""
    path = Path(path)
    try:
        table = pd.read_csv(
            path,
            sep="\t",
            header=None,
            names=["gene_id", "value"],
            dtype={"gene_id": "str", "value": "float64"},
            index_col=False,
            quoting=csv.QUOTE_NONE,
        )
    except READ_ERRORS as error:
        raise table_fault(path, error, "two columns: gene id, value") from error
    table = table[~table["gene_id"].astype(str).str.startswith("__")]
    genes = table[["gene_id"]].reset_index(drop=True).assign(gene_name="", gene_type="")
    return genes, table["value"].to_numpy(np.float64)


def _check_last_line(path: Path) -> None:
    """GDC ends every line; a file cut inside a number would otherwise read as another number."""
    if path.suffix == ".gz" or not path.is_file() or path.stat().st_size == 0:
        return
    with path.open("rb") as file:
        file.seek(-1, 2)
        if file.read(1) != b"\n":
            raise fault("truncated-file", path, "a last line without its end", "a complete file")


def _open_text(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def matrix_header(path: Path) -> list[str]:
    """Column names; FaultError if this is no matrix."""
    try:
        with _open_text(path) as stream:
            line = stream.readline(1 << 26).rstrip("\r\n")
    except READ_ERRORS as error:
        raise table_fault(path, error, "a genes × samples table") from error
    if line.startswith("# gene-model"):
        expected = "its folder, with gdc_sample_sheet.tsv: one file holds one sample"
        raise fault("single-sample", path, "a single GDC STAR file", expected)
    header = line.split("\t")
    if len(header) < 2:
        raise fault("no-samples", path, f"header '{line[:60]}'", "Ensembl_ID, then samples (tabs)")
    return [name.strip().strip('"') for name in header]


def read_matrix(path: Path, names: list[str]) -> tuple[pd.Series, np.ndarray]:
    """Read columns of a genes × samples matrix.

    Returns:
        gene ids as text, and values (n, G) float32 in the order of ``names``.
    """
    header = matrix_header(path)
    wanted = [header.index(name) for name in names]
    try:
        _check_rows(path, len(header))
        table = pd.read_csv(
            path,
            sep="\t",
            skiprows=1,
            header=None,
            usecols=[0, *wanted],
            dtype={0: "str", **dict.fromkeys(wanted, "float64")},
            quoting=csv.QUOTE_NONE,
        )
    except READ_ERRORS as error:
        raise table_fault(path, error, f"{len(header)} columns of numbers") from error
    table[0] = table[0].astype(str).str.strip('"')
    table = table[~table[0].str.startswith("__")]
    values = np.ascontiguousarray(table[wanted].to_numpy(np.float32).T)  # (n, G)
    return table[0], values


def _check_rows(path: Path, width: int) -> None:
    """Every row as long as the header: pandas lets longer and shorter ones pass in silence."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        rows = 0
        for rows, line in enumerate(stream):
            cells = line.count(b"\t") + 1
            if cells != width and line.strip():
                where = f"{path} row {rows + 1}"
                raise fault("row-length", where, f"{cells} cells", f"{width} as in the header")
    if not rows:
        raise fault("no-genes", path, "a header without rows", "one row a gene")


def table_fault(path: Path, error: Exception, expected: str) -> FaultError:
    """The fault behind an error of ``READ_ERRORS``."""
    text = " ".join(str(error).split())[:200]
    if isinstance(error, FileNotFoundError):
        kind = "missing-file"
    elif "Usecols do not match" in text:
        kind = "missing-column"
    elif isinstance(error, EOFError):
        kind = "truncated-file"
    else:
        kind = "unreadable-file"
    return fault(kind, path, f"{type(error).__name__}: {text}", expected)


def fault(kind: str, where: str | Path, found: str, expected: str) -> FaultError:
    """A FaultError of one fault."""
    return FaultError([Fault(kind, str(where), found, expected)])
