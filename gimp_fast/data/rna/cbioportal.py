"""cBioPortal's expression tables: ``Hugo_Symbol``, ``Entrez_Gene_Id``, then one column a sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gimp_fast.data.rna.files import gene_row
from gimp_fast.data.rna.grid import Block, Grid
from gimp_fast.data.rna.samples import Sample
from gimp_fast.data.rna.source import GeneRows, Loaded, drop_row, gene_faults
from gimp_fast.errors import Fault

_SYMBOL, _ENTREZ = "Hugo_Symbol", "Entrez_Gene_Id"
_BLANK = ("", "NA", "nan", "NaN")


def is_cbioportal(header: Sequence[str]) -> bool:
    """Whether the first columns are cBioPortal's."""
    return header[0] in (_SYMBOL, _ENTREZ) or header[1] == _ENTREZ


def value_columns(header: Sequence[str]) -> list[int]:
    """Places of the samples."""
    return [n for n, name in enumerate(header) if name not in (_SYMBOL, _ENTREZ)]


@dataclass(frozen=True)
class _Gene:
    place: int
    row: int
    symbol: str
    entrez: str


def load_cbioportal(grid: Grid, samples: list[Sample]) -> Loaded:
    """Read samples; a symbol on several rows becomes ``SYMBOL|ENTREZ``."""
    header = grid.header
    text = [header.index(name) for name in (_SYMBOL, _ENTREZ) if name in header]
    block = grid.read(text, [header.index(sample.barcode) for sample in samples])
    named, dropped = _named(grid, block, _SYMBOL in header)
    kept, repeats, faults = _unique(grid, block, named)
    dropped += repeats
    several = {s for s, n in Counter(gene.symbol for gene in kept).items() if n > 1 and s}
    places, genes = [], []
    for gene in kept:
        gene_id = gene.symbol or gene.entrez
        if gene.symbol in several and gene.entrez:
            gene_id = f"{gene.symbol}|{gene.entrez}"
        if samples and np.isnan(block.values[gene.place]).all():
            dropped.append(drop_row(gene_id, gene.symbol, "no value in any sample", grid.path))
            continue
        places.append(gene.place)
        genes.append(gene_row(gene_id, gene.symbol))
    faults += gene_faults(grid.path, [row["gene_id"] for row in genes])
    return Loaded(np.ascontiguousarray(block.values[places].T), genes, faults, dropped)


def _named(grid: Grid, block: Block, has_symbol: bool) -> tuple[list[_Gene], GeneRows]:
    """Rows that name a gene, and the others."""
    genes, dropped = [], []
    for place, (row, texts) in enumerate(zip(block.rows, block.texts, strict=True)):
        cells = ["" if cell in _BLANK else cell for cell in texts]
        symbol, entrez = cells if len(cells) == 2 else (*cells, "") if has_symbol else ("", *cells)
        if symbol or entrez:
            genes.append(_Gene(place, row, symbol, entrez))
        else:
            reason = f"neither symbol nor Entrez id: row {row}"
            dropped.append(drop_row("", "", reason, grid.path))
    return genes, dropped


def _unique(
    grid: Grid, block: Block, genes: list[_Gene]
) -> tuple[list[_Gene], GeneRows, list[Fault]]:
    """First rows of each gene, rows that repeat one, and faults for those that contradict one."""
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
            dropped.append(drop_row(name, gene.symbol, reason, grid.path))
        else:
            found = f"gene {name} in rows {earlier.row} and {gene.row} with other values"
            faults.append(Fault("duplicate-gene", str(grid.path), found, "each gene once"))
    return list(first.values()), dropped, faults
