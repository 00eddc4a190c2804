"""cBioPortal's expression tables: ``Hugo_Symbol``, ``Entrez_Gene_Id``, and a column per sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gimp_fast.data.rna.samples import Sample
from gimp_fast.data.rna.source import Expression, GeneRows, drop_row, gene_faults, gene_row
from gimp_fast.errors import Fault, Read
from gimp_fast.files.parquet import ParquetTable
from gimp_fast.files.table import MISSING, Block, Table

_SYMBOL, _ENTREZ = "Hugo_Symbol", "Entrez_Gene_Id"


def is_cbioportal(header: Sequence[str]) -> bool:
    """True if the first columns are those of cBioPortal."""
    return header[0] in (_SYMBOL, _ENTREZ) or header[1] == _ENTREZ


def value_columns(header: Sequence[str]) -> list[int]:
    """Places of the columns of samples."""
    return [n for n, name in enumerate(header) if name not in (_SYMBOL, _ENTREZ)]


@dataclass(frozen=True)
class _Gene:
    place: int
    row: int
    symbol: str
    entrez: str


def load_cbioportal(table: Table | ParquetTable, samples: list[Sample]) -> Read[Expression]:
    """Expression of samples; a symbol on several rows becomes ``SYMBOL|ENTREZ``."""
    header = table.header
    text = [header.index(name) for name in (_SYMBOL, _ENTREZ) if name in header]
    block = table.read(text, [header.index(sample.barcode) for sample in samples])
    named, dropped = _named(table, block, _SYMBOL in header)
    kept, repeats, faults = _unique(table, block, named)
    dropped += repeats
    several = {s for s, n in Counter(gene.symbol for gene in kept).items() if n > 1 and s}
    places, genes = [], []
    for gene in kept:
        gene_id = gene.symbol or gene.entrez
        if gene.symbol in several and gene.entrez:
            gene_id = f"{gene.symbol}|{gene.entrez}"
        if samples and np.isnan(block.values[gene.place]).all():
            dropped.append(drop_row(gene_id, gene.symbol, "no value in any sample", table.path))
            continue
        places.append(gene.place)
        genes.append(gene_row(gene_id, gene.symbol))
    faults += gene_faults(table.path, [row["gene_id"] for row in genes])
    values = np.ascontiguousarray(block.values[places].T)
    return Read(Expression(values, genes, dropped_genes=dropped), tuple(faults))


def _named(
    table: Table | ParquetTable, block: Block, has_symbol: bool
) -> tuple[list[_Gene], GeneRows]:
    """Rows that name a gene, and rows that do not."""
    genes, dropped = [], []
    for place, (row, texts) in enumerate(zip(block.rows, block.texts, strict=True)):
        cells = ["" if cell in MISSING else cell for cell in texts]
        symbol, entrez = cells if len(cells) == 2 else (*cells, "") if has_symbol else ("", *cells)
        if symbol or entrez:
            genes.append(_Gene(place, row, symbol, entrez))
        else:
            reason = f"neither symbol nor Entrez id: row {row}"
            dropped.append(drop_row("", "", reason, table.path))
    return genes, dropped


def _unique(
    table: Table | ParquetTable, block: Block, genes: list[_Gene]
) -> tuple[list[_Gene], GeneRows, list[Fault]]:
    """First row of each gene; repeated rows; and faults for rows with other values of a gene."""
    first: dict[tuple[str, str], _Gene] = {}
    dropped, faults = [], []
    for gene in genes:
        earlier = first.setdefault((gene.symbol, gene.entrez), gene)
        if earlier is gene:
            continue
        values = block.values[[earlier.place, gene.place]]
        name = gene.symbol or gene.entrez
        if np.array_equal(values[0], values[1], equal_nan=True):
            reason = f"repeats another row: row {gene.row} is row {earlier.row}"
            dropped.append(drop_row(name, gene.symbol, reason, table.path))
        else:
            found = f"gene {name} in rows {earlier.row} and {gene.row} with other values"
            faults.append(Fault("duplicate-gene", str(table.path), found, "each gene once"))
    return list(first.values()), dropped, faults
