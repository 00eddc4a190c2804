"""Symbols of a model's genes, where its gene list has only ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gimp_fast.data import Cohort
from gimp_fast.data.rna.gene_lists import gene_key
from gimp_fast.errors import FaultError
from gimp_fast.files.table import open_table

# Of HGNC's and BioMart's downloads, Xena's probe maps, and this package's genes.csv.
_ID_COLUMNS = ("gene_id", "ensembl_gene_id", "gene stable id", "ensembl_id", "id")
_SYMBOL_COLUMNS = ("gene_name", "symbol", "gene name", "gene_symbol", "hgnc_symbol", "gene")


def read_symbols(path: Path) -> dict[str, str]:
    """Id without version -> symbol, of a table with a column of each; GimpError if it has none."""
    table = open_table(path)
    table = replace(table, header=tuple(column.strip().lower() for column in table.header))
    columns = table.one_of(*_ID_COLUMNS), table.one_of(*_SYMBOL_COLUMNS)
    symbols: dict[str, str] = {}
    for _, gene_id, symbol in table.rows(*columns):
        if gene_id and symbol:
            symbols.setdefault(gene_key(gene_id), symbol)
    if not symbols:
        raise FaultError.of("empty-table", path, "no symbol", "a row per gene, with id and symbol")
    return symbols


def symbols_of(
    gene_ids: Sequence[str], gene_names: Sequence[str], cohort: Cohort, table: Path | None
) -> tuple[str, ...]:
    """A symbol for each gene, ``""`` where none is known.

    Args:
        gene_ids: the model's genes.
        gene_names: the model's symbols; empty if it has none.
        cohort: whose symbols serve where the model has none.
        table: of symbols, which comes first; None if there is none.

    Raises:
        FaultError: the table has none of the genes.
    """
    found = {}
    for known in (zip(cohort.gene_ids, cohort.gene_names), zip(gene_ids, gene_names)):  # noqa: B905
        found |= {gene_key(gene_id): name for gene_id, name in known if name}
    if table is not None:
        given = read_symbols(table)
        if not any(gene_key(gene_id) in given for gene_id in gene_ids):
            have = f"none of the {len(gene_ids)} genes of the model, e.g. {', '.join(gene_ids[:3])}"
            raise FaultError.of("no-genes", table, have, "their ids, with symbols")
        found |= given
    return tuple(found.get(gene_key(gene_id), "") for gene_id in gene_ids)


def with_symbol(gene_id: str, symbol: str) -> str:
    """A gene as it is shown: its symbol beside its id, or one of them if there is no other."""
    return f"{symbol} ({gene_id})" if symbol and symbol != gene_id else gene_id
