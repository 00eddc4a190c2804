"""Names of genes, and files of them: gene lists and signatures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gimp_fast.errors import FaultError
from gimp_fast.files.number_text import decode, read_lines, split_cells

_ENSEMBL = re.compile(r"(ENS[A-Z]*G\d{11})\.\d+(_PAR_Y)?")
_LIST_COLUMNS = ("gene_id", "gene", "symbol", "gene_name", "gene_symbol", "hugo_symbol")
_BLANK = ("", "nan", "NaN", "NA")


def gene_key(gene_id: str) -> str:
    """The name under which two sources hold the same gene: an Ensembl id without its version.

    ``ENSG00000002586.20_PAR_Y`` gives ``ENSG00000002586_PAR_Y``: the second copy of a gene on
    chromosome Y stays apart from the first. All other ids are left as they are, because the ``.7``
    of ``RP11-34P13.7`` is part of the name.
    """
    match = _ENSEMBL.fullmatch(gene_id)
    return match[1] + (match[2] or "") if match else gene_id


def read_gene_list(path: str | Path) -> list[str]:
    """Genes of a file, each once: text with one a line and ``#`` comments, or a ``.csv`` /
    ``.tsv`` with a column gene_id, gene, symbol, gene_name, gene_symbol or Hugo_Symbol.

    Raises:
        FaultError: unreadable, no such column, no genes, or more than one name in a line.
    """
    path = Path(path)
    table = _delimiter(path)
    names = list(_list_column(path, table) if table else _list_lines(path))
    genes = list(dict.fromkeys(name for name in names if name not in _BLANK))
    if not genes:
        raise FaultError.of("no-genes", path, "no genes", "one gene or more")
    return genes


def _delimiter(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return {".csv": ",", ".tsv": "\t"}.get(Path(name).suffix, "")


def _list_lines(path: Path) -> Iterator[str]:
    for number, line in read_lines(path, "one gene a line", whole_lines=False):
        where = f"{path} row {number}"
        name = decode(line.split(b"#")[0], where)
        if name and not _is_name(name):
            raise FaultError.of(
                "gene-list-file", where, f"'{name[:60]}'", "one gene a line, or a .csv"
            )
        yield name


def _is_name(name: str) -> bool:
    return name.isprintable() and not any(c in name for c in " ,;\t\"'")


def _list_column(path: Path, delimiter: str) -> Iterator[str]:
    rows = _rows(path, delimiter, "a table with a column of genes")
    _, header = next(rows, ("", []))
    lower = [name.lower() for name in header]
    column = next((lower.index(name) for name in _LIST_COLUMNS if name in lower), None)
    if column is None:
        found = f"columns {', '.join(header)[:200] or 'none'}"
        raise FaultError.of("missing-column", path, found, f"one of {', '.join(_LIST_COLUMNS)}")
    for where, cells in rows:
        if len(cells) != len(header):
            expected = f"{len(header)} as in the header"
            raise FaultError.of("row-length", where, f"{len(cells)} cells", expected)
        yield cells[column]


def _rows(path: Path, delimiter: str, expected: str) -> Iterator[tuple[str, list[str]]]:
    """(where, cells) of each line; people's own lists need not end with a line end."""
    for number, line in read_lines(path, expected, whole_lines=False):
        where = f"{path} row {number}"
        yield where, [decode(cell, where) for cell in split_cells(line, delimiter, where)]


def read_gene_sets(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Signatures of a file, in its order, each gene once in each.

    ``.gmt`` (MSigDB): a line is name, description, genes, with tabs between. ``.csv``: a column is
    a signature, its name on top; short columns are padded with nothing or NaN, as in the
    signatures of MCAT and SurvPath.

    Raises:
        FaultError: unreadable, no signature, one without genes, or two of one name.
    """
    path = Path(path)
    named = _gmt(path) if path.name.lower().endswith(".gmt") else _signature_columns(path)
    sets: dict[str, tuple[str, ...]] = {}
    for where, name, genes in named:
        genes = tuple(dict.fromkeys(gene for gene in genes if gene not in _BLANK))
        if not name or not genes:
            found = f"signature '{name}' with {len(genes)} genes"
            raise FaultError.of("empty-gene-set", where, found, "a name, and genes")
        if name in sets:
            raise FaultError.of(
                "duplicate-gene-set", where, f"'{name}' again", "each signature once"
            )
        sets[name] = genes
    if not sets:
        raise FaultError.of("no-genes", path, "no signatures", "a .gmt, or a csv with one a column")
    return sets


def _gmt(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    for where, cells in _rows(path, "\t", "an MSigDB .gmt"):
        if len(cells) < 3:
            expected = "name, description, genes (tabs between)"
            raise FaultError.of("row-length", where, f"{len(cells)} cells", expected)
        yield where, cells[0], cells[2:]


def _signature_columns(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    rows = _rows(path, _delimiter(path) or ",", "a csv of signatures")
    _, header = next(rows, ("", []))
    columns: list[list[str]] = [[] for _ in header]
    for where, cells in rows:
        if len(cells) > len(header):
            expected = f"{len(header)} as in the header"
            raise FaultError.of("row-length", where, f"{len(cells)} cells", expected)
        for column, cell in zip(columns, cells, strict=False):
            column.append(cell)
    for number, (name, genes) in enumerate(zip(header, columns, strict=True), start=1):
        is_index = number == 1 and name in ("", "Unnamed: 0") and all(g.isdigit() for g in genes)
        if not is_index:
            yield f"{path} column {number}", name, genes
