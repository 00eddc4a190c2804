"""cBioPortal's expression tables: ``Hugo_Symbol``, ``Entrez_Gene_Id``, and a column per sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from gimp_fast.data.rna.samples import Sample
from gimp_fast.data.rna.source import Expression, check_genes, drop_row, gene_row
from gimp_fast.errors import Faults, Read
from gimp_fast.files.parquet import ParquetTable
from gimp_fast.files.table import MISSING, Table

_SYMBOL, _ENTREZ = GENE_COLUMNS = ("Hugo_Symbol", "Entrez_Gene_Id")


def is_cbioportal(header: Sequence[str]) -> bool:
    """True if the first columns are those of cBioPortal."""
    return header[0] in GENE_COLUMNS or header[1] == _ENTREZ


def load_cbioportal(table: Table | ParquetTable, samples: list[Sample]) -> Read[Expression]:
    """Expression of samples; a symbol on several rows becomes ``SYMBOL|ENTREZ``."""
    header, source, faults = table.header, table.path, Faults()
    names = [name for name in GENE_COLUMNS if name in header]
    block = table.read([*map(header.index, names)], [header.index(s.barcode) for s in samples])
    first: dict[tuple[str, str], int] = {}  # gene -> place of its row in the block
    unnamed, repeated, unmeasured = [], [], []
    for place, (row, texts) in enumerate(zip(block.rows, block.texts, strict=True)):
        cells = dict(zip(names, texts, strict=True))
        symbol, entrez = ("" if (c := cells.get(n, "")) in MISSING else c for n in GENE_COLUMNS)
        if not (symbol or entrez):
            reason = f"neither symbol nor Entrez id: row {row}"
            unnamed.append(drop_row("", "", reason, source))
            continue
        earlier = first.setdefault((symbol, entrez), place)
        if earlier == place:
            continue
        name, earlier_row = symbol or entrez, block.rows[earlier]
        if np.array_equal(block.values[earlier], block.values[place], equal_nan=True):
            reason = f"repeats another row: row {row} is row {earlier_row}"
            repeated.append(drop_row(name, symbol, reason, source))
        else:
            found = f"gene {name} in rows {earlier_row} and {row} with other values"
            faults.add("duplicate-gene", source, found, "each gene once")
    several = Counter(symbol for symbol, _ in first if symbol)
    places, genes = [], []
    for (symbol, entrez), place in first.items():
        gene_id = f"{symbol}|{entrez}" if several[symbol] > 1 and entrez else symbol or entrez
        if samples and np.isnan(block.values[place]).all():
            unmeasured.append(drop_row(gene_id, symbol, "no value in any sample", source))
        else:
            places.append(place)
            genes.append(gene_row(gene_id, symbol))
    faults.items += check_genes(source, genes)
    dropped = [*unnamed, *repeated, *unmeasured]
    values = np.ascontiguousarray(block.values[places].T)
    return faults.read(Expression(values, genes, dropped_genes=dropped))
