"""cBioPortal's expression tables: ``Hugo_Symbol``, ``Entrez_Gene_Id``, and a column per sample."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from gimp_fast.data.rna.repairs import is_no_name
from gimp_fast.data.rna.samples import Sample
from gimp_fast.data.rna.values import Expression, drop_row, gene_row
from gimp_fast.errors import Read
from gimp_fast.files.parquet import ParquetTable
from gimp_fast.files.table import Table

GENE_COLUMNS = ("Hugo_Symbol", "Entrez_Gene_Id")


def is_cbioportal(header: Sequence[str]) -> bool:
    """True if the first column is one of cBioPortal's."""
    return header[0] in GENE_COLUMNS


def load_cbioportal(
    table: Table | ParquetTable,
    column_of: Mapping[str, int],
    noted: dict[str, object],
    samples: list[Sample],
) -> Read[Expression]:
    """Expression of samples; a symbol of several Entrez ids becomes ``SYMBOL|ENTREZ``.

    Args:
        table: of cBioPortal.
        column_of: sample -> its column.
        noted: facts of the table.
        samples: to read.
    """
    header = table.header
    names = [name for name in GENE_COLUMNS if name in header]
    block = table.read([*map(header.index, names)], [column_of[s.barcode] for s in samples])
    ids_of: dict[str, set[str]] = defaultdict(set)  # symbol -> its Entrez ids
    named, dropped = [], []
    for place, (row, texts) in enumerate(zip(block.rows, block.texts, strict=True)):
        cells = dict(zip(names, texts, strict=True))
        symbol, entrez = ("" if is_no_name(c := cells.get(n, "")) else c for n in GENE_COLUMNS)
        entrez = entrez.removesuffix(".0")  # a column with gaps, as pandas writes it
        if symbol or entrez:
            named.append((place, symbol, entrez))
            ids_of[symbol].add(entrez)
        else:
            reason = f"neither symbol nor Entrez id: row {row}"
            dropped.append(drop_row("", "", reason, table.path))
    genes = []
    for _, symbol, entrez in named:
        several = symbol and entrez and len(ids_of[symbol]) > 1
        genes.append(gene_row(f"{symbol}|{entrez}" if several else symbol or entrez, symbol))
    kept = [place for place, *_ in named]
    values = np.ascontiguousarray(block.values[kept].T)
    places = [f"row {block.rows[place]}" for place in kept]
    return Read(Expression(values, genes, places=places, dropped_genes=dropped, provenance=noted))
