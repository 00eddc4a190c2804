"""Whether a table has genes or samples in its rows."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from gimp_fast.data.rna.grid import Grid
from gimp_fast.data.rna.samples import BARCODE, case_of

GENES_IN_ROWS, SAMPLES_IN_ROWS = "genes-in-rows", "samples-in-rows"
ORIENTATIONS = ("auto", GENES_IN_ROWS, SAMPLES_IN_ROWS)
RNA_SUFFIX = "_rnaseq"
CASE_COLUMNS = ("case_id", "patient_id", "patient", "PATIENT", "submitter_id")
SAMPLE_COLUMNS = ("barcode", "sample_id", "sample")
_OVER_GENES = {"ensembl_id", "gene_id", "gene", "gene_name", "hugo_symbol", "entrez_gene_id", "id"}
_OVER_SAMPLES = {*CASE_COLUMNS, *SAMPLE_COLUMNS, "slide_id", "slide"} - {"sample"}
_ENSEMBL = re.compile(r"ENS[A-Z]*G\d{11}(?:\.\d+)?(?:_PAR_Y)?")
# Rows looked at; the ids of an axis look alike.
_PEEK = 1000


def id_column(header: Sequence[str], names: Sequence[str]) -> int | None:
    """Place of the first of these names that the header has."""
    return next((header.index(name) for name in names if name in header), None)


def find_orientation(grid: Grid, asked: str, known_cases: Collection[str]) -> str:
    """What was asked for, or for ``auto`` the first of these that tells.

    1. Columns that end in ``_rnaseq`` are genes.
    2. The axis that holds more of the known patients.
    3. The axis whose names are TCGA barcodes, across from one of Ensembl ids.
    4. The first header cell. Xena writes ``sample`` over its genes, so that word tells nothing.
    5. Genes in rows.
    """
    if asked != "auto":
        return asked
    header = grid.header
    if any(name.endswith(RNA_SUFFIX) for name in header):
        return SAMPLES_IN_ROWS
    place = id_column(header, (*CASE_COLUMNS, *SAMPLE_COLUMNS)) or 0
    rows = [ids[0] for ids in grid.texts([place], _PEEK).texts]
    known = frozenset(known_cases)
    votes: float = _known(rows, known) - _known(header[1:], known)
    votes = votes or _shapes(rows, header[1:])
    if votes:
        return SAMPLES_IN_ROWS if votes > 0 else GENES_IN_ROWS
    first = header[0]
    if first.lower() in _OVER_GENES:
        return GENES_IN_ROWS
    if first in _OVER_SAMPLES or (first in ("", "Unnamed: 0") and place):
        return SAMPLES_IN_ROWS
    return GENES_IN_ROWS


def _known(names: Sequence[str], known: Collection[str]) -> int:
    return sum(name in known or case_of(name) in known for name in names)


def _shapes(rows: Sequence[str], columns: Sequence[str]) -> float:
    """Above 0 where samples stand in rows, below 0 where genes do, 0 where names do not tell."""
    return (
        _share(BARCODE, rows)
        + _share(_ENSEMBL, columns)
        - _share(BARCODE, columns)
        - _share(_ENSEMBL, rows)
    )


def _share(pattern: re.Pattern[str], names: Sequence[str]) -> float:
    """Fraction of names of this shape; 0 unless it is most of them."""
    share = sum(pattern.fullmatch(name) is not None for name in names) / max(1, len(names))
    return share if share > 0.5 else 0.0
