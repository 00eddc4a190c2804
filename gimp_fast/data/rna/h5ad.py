"""AnnData files (``.h5ad``): samples in ``obs``, genes in ``var``.

anndata, which is imported only here, decodes the tables; of the matrix only the rows asked for are
read. HDF5 protects neither the description of an array nor, by default, its values: everything is
checked as far as possible before it is used, and all reading happens in another process.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from gimp_fast.data.names import PATIENT_COLUMNS
from gimp_fast.data.rna.samples import Sample, make_sample
from gimp_fast.data.rna.source import ExpressionSource
from gimp_fast.data.rna.values import Expression, GeneRows, gene_row
from gimp_fast.errors import FaultError, Read, did_you_mean, missing_library
from gimp_fast.files.hdf5 import (
    FLOATS,
    INTEGERS,
    check_all_stored,
    check_stored,
    has_type,
    hdf5_errors,
    member,
)
from gimp_fast.files.isolated import run_isolated

_UNEQUAL = "columns of several lengths"
_TABLE = "a dataframe as anndata 0.8 or later writes it"
_ENCODINGS = {
    ("array", "0.2.0"),
    ("string-array", "0.2.0"),
    ("categorical", "0.2.0"),
    ("nullable-string-array", "0.1.0"),
}
_SPARSE = ("csr_matrix", "csc_matrix")
_WINDOW = 256  # rows of a dense matrix read at once


def open_h5ad(path: Path, layer: str | None, sample_types: tuple[str, ...]) -> ExpressionSource:
    """List the samples of an AnnData file; see ``open_expression``."""
    if importlib.util.find_spec("anndata") is None:
        raise missing_library("anndata", path, ImportError("not installed"))
    ids, cases = run_isolated(_list_samples, path, layer)
    repeated = [id for id, count in Counter(ids).items() if count > 1]
    if repeated:
        found = f"'{repeated[0]}' twice in obs"
        raise FaultError.of("duplicate-sample", path, found, "each sample once")
    if "" in ids or "" in cases:
        expected = "an id for every sample"
        raise FaultError.of("sample-without-id", path, "an empty id in obs", expected)
    if not ids:
        raise FaultError.of("no-samples", path, "no rows in obs", "one row per sample")
    samples = tuple(
        make_sample(id, path, sample_types, case_id=case)
        for id, case in zip(ids, cases, strict=True)
    )
    row_of = {id: row for row, id in enumerate(ids)}
    return ExpressionSource("h5ad", (path,), samples, partial(_load, path, layer, row_of))


def _load(
    path: Path, layer: str | None, row_of: dict[str, int], samples: list[Sample]
) -> Read[Expression]:
    rows = np.array([row_of[sample.barcode] for sample in samples], np.int64)
    values, genes = run_isolated(_read_rows, path, layer, len(row_of), rows)
    places = [f"var {n + 1}" for n in range(len(genes))]
    return Read(Expression(values, genes, places=places, provenance={"layer": layer}))


def _list_samples(path: Path, layer: str | None) -> tuple[list[str], list[str]]:
    """Ids of samples and of their patients, after checking the shape of the matrix."""
    with _reading(path) as file:
        ids = _column(file, "obs", "barcode", "sample_id") or _index(file, "obs")
        cases = _column(file, "obs", *PATIENT_COLUMNS)
        cases = ids if cases is None else cases
        if len(cases) != len(ids):
            raise FaultError.of("unreadable-file", f"{path}[obs]", _UNEQUAL, _TABLE)
        _matrix(file, layer, (len(ids), len(_index(file, "var"))))
    return ids, cases


def _read_rows(
    path: Path, layer: str | None, num_samples: int, rows: np.ndarray
) -> tuple[np.ndarray, GeneRows]:
    """(n, G) float32 of these rows, and the genes."""
    with _reading(path) as file:
        genes = _genes(file)
        shape = (num_samples, len(genes))
        matrix = _matrix(file, layer, shape)
        with np.errstate(over="ignore"):  # infinite values are reported by later checks
            if isinstance(matrix, h5py.Dataset):
                return _dense_rows(matrix, rows), genes
            return _sparse_rows(matrix, shape, rows), genes


def _genes(file: h5py.File) -> GeneRows:
    names = _index(file, "var")
    ids = _column(file, "var", "gene_ids", "gene_id")
    symbols = _column(file, "var", "gene_name", "gene_symbols")
    if symbols is None:
        symbols = names if ids else [""] * len(names)
    types = _column(file, "var", "gene_type", "feature_types")
    # 10x writes "Gene Expression" for all features, which is not a biotype.
    if types is None or "protein_coding" not in types:
        types = [""] * len(names)
    columns = (ids or names, symbols, types)
    if any(len(column) != len(names) for column in columns):
        raise FaultError.of("unreadable-file", f"{file.filename}[var]", _UNEQUAL, _TABLE)
    return [gene_row(*row) for row in zip(*columns, strict=True)]


def _index(file: h5py.File, axis: str) -> list[str]:
    name = _table(file, axis).attrs["_index"]
    index = _column(file, axis, name)
    if index is None:
        where = f"{file.filename}[{axis}]"
        raise FaultError.of("unreadable-file", where, f"no index '{name}'", _TABLE)
    return index


def _column(file: h5py.File, axis: str, *names: str) -> list[str] | None:
    """The first of these columns that exists, as text; None if none does."""
    table = _table(file, axis)
    column, name = next(
        ((column, name) for name in names if (column := member(table, name)) is not None),
        (None, ""),
    )
    if column is None:
        return None
    where = f"{file.filename}[{axis}/{name}]"
    attributes = column.attrs
    encoding = (attributes.get("encoding-type"), attributes.get("encoding-version"))
    if encoding not in _ENCODINGS:
        expected = "text or categories as anndata 0.8 or later writes them"
        raise FaultError.of("unreadable-file", where, f"encoding {encoding}", expected)
    check_all_stored(where, column)
    try:
        from anndata.io import read_elem
    except ImportError as error:
        raise missing_library("anndata", file.filename, error) from error
    return [_text(where, cell) for cell in np.asarray(read_elem(column), dtype=object)]


def _text(where: str, cell: Any) -> str:
    import pandas as pd

    if isinstance(cell, str | int | np.integer) and not isinstance(cell, bool):
        return str(cell).strip()
    if pd.isna(cell):
        return ""
    raise FaultError.of("unreadable-file", where, f"{cell!r:.60}", "text or whole numbers")


def _table(file: h5py.File, axis: str) -> h5py.Group:
    table = member(file, axis)
    kind = table.attrs.get("encoding-type") if table is not None else None
    if not isinstance(table, h5py.Group) or kind != "dataframe":
        found = f"no '{axis}'" if table is None else f"'{axis}' of encoding {kind}"
        raise FaultError.of("unreadable-file", file.filename, found, _TABLE)
    return table


def _matrix(
    file: h5py.File, layer: str | None, shape: tuple[int, int]
) -> h5py.Dataset | h5py.Group:
    """X or a layer, checked."""
    name = f"layers/{layer}" if layer else "X"
    matrix = member(file, name)
    if matrix is None:
        layers = ", ".join(member(file, "layers") or ())
        found = f"no '{name}'; layers: {layers or 'none'}"
        near = did_you_mean(layer, file["layers"]) if layer and layers else ""
        raise FaultError.of("no-layer", file.filename, found, f"a matrix of expression there{near}")
    where, kind = f"{file.filename}[{name}]", matrix.attrs.get("encoding-type")
    if isinstance(matrix, h5py.Dataset):
        found, parts = matrix.shape, (matrix,)
    elif kind in _SPARSE:
        found = tuple(int(n) for n in matrix.attrs["shape"])
        parts = tuple(_part(matrix, part) for part in ("data", "indices", "indptr"))
    else:
        expected = "a dense or sparse matrix"
        raise FaultError.of("unreadable-file", where, f"encoding {kind}", expected)
    if found != shape:
        expected = f"{shape}, the lengths of obs and var"
        raise FaultError.of("table-shape", where, f"a matrix of shape {found}", expected)
    for number, part in enumerate(parts):
        check_stored(where, part)
        # The first part holds the values; the others of a sparse matrix are indices.
        if not has_type(part, INTEGERS if number else (*FLOATS, *INTEGERS)):
            expected = "little-endian integers" if number else "little-endian numbers"
            raise FaultError.of("expression-dtype", where, f"values of type {part.dtype}", expected)
    return matrix


def _part(matrix: h5py.Group, name: str) -> h5py.Dataset:
    part = member(matrix, name)
    if not isinstance(part, h5py.Dataset):
        where = f"{matrix.file.filename}[{matrix.name[1:]}]"
        raise FaultError.of("unreadable-file", where, f"no '{name}'", "a sparse matrix")
    return part


def _dense_rows(matrix: h5py.Dataset, rows: np.ndarray) -> np.ndarray:
    """(n, G) float32, read in windows of the file, not in single rows."""
    values = np.empty((len(rows), matrix.shape[1]), np.float32)
    for window in np.unique(rows // _WINDOW):
        places = np.flatnonzero(rows // _WINDOW == window)
        start = int(window) * _WINDOW
        values[places] = matrix[start : start + _WINDOW][rows[places] - start]
    return values


def _sparse_rows(matrix: h5py.Group, shape: tuple[int, int], rows: np.ndarray) -> np.ndarray:
    """(n, G) float32 from compressed rows or columns."""
    where = f"{matrix.file.filename}[{matrix.name[1:]}]"
    rows, back = np.unique(rows, return_inverse=True)
    by_rows = matrix.attrs["encoding-type"] == "csr_matrix"
    lines, width = shape if by_rows else shape[::-1]
    ends = matrix["indptr"][:].astype(np.int64)  # (lines + 1,)
    data, indices = matrix["data"], matrix["indices"]
    whole = len(ends) == lines + 1 and ends[0] == 0 and (np.diff(ends) >= 0).all()
    if not whole or not ends[-1] == data.shape[0] == indices.shape[0]:
        found = "row pointers that do not fit"
        raise FaultError.of("unreadable-file", where, found, "a sparse matrix")
    values = np.zeros((len(rows), shape[1]), np.float32)
    place_of = np.full(shape[0], -1)
    place_of[rows] = np.arange(len(rows))
    for line in rows if by_rows else range(lines):
        start, stop = int(ends[line]), int(ends[line + 1])
        at = indices[start:stop].astype(np.int64)
        if len(at) and (at.min() < 0 or at.max() >= width or len(np.unique(at)) < len(at)):
            found = f"indices of line {line} outside 0 … {width - 1}, or twice"
            raise FaultError.of("unreadable-file", where, found, "a sparse matrix")
        if by_rows:
            values[place_of[line], at] = data[start:stop]
        else:
            kept = place_of[at] >= 0
            values[place_of[at[kept]], line] = data[start:stop][kept]
    return values[back]


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[h5py.File]:
    with hdf5_errors(path, "a complete AnnData file"), h5py.File(path, "r") as file:
        yield file
