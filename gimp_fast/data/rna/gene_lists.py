"""Names of genes, and the files that list them: gene lists and signatures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from gimp_fast.data.rna.dates import find_dates
from gimp_fast.errors import FaultError, did_you_mean
from gimp_fast.files.numbers import MISSING
from gimp_fast.files.table import find_delimiter, open_table, read_rows
from gimp_fast.files.text import read_lines

# Name for --gene-sets -> file in the package; its README says where they come from.
BUNDLED = {"hallmark": "hallmark.gmt"}
_ENSEMBL = re.compile(r"(ENS[A-Z]*G\d{11})\.\d+(_PAR_Y)?")
_LIST_COLUMNS = ("gene_id", "gene", "symbol", "gene_name", "gene_symbol", "hugo_symbol")


def gene_key(gene_id: str) -> str:
    """The name by which genes of two sources are compared: an Ensembl id without its version.

    ``ENSG00000002586.20_PAR_Y`` gives ``ENSG00000002586_PAR_Y``: the second copy of a gene on
    chromosome Y stays apart from the first. All other ids are unchanged, because the ``.7`` of
    ``RP11-34P13.7`` is part of the name.
    """
    match = _ENSEMBL.fullmatch(gene_id)
    return match[1] + (match[2] or "") if match else gene_id


def read_gene_list(path: str | Path) -> list[str]:
    """Genes of a file, each once.

    The file is text with one gene per line and ``#`` comments, or a table with a column gene_id,
    gene, symbol, gene_name, gene_symbol or Hugo_Symbol, if its name ends in ``.csv`` or ``.tsv``
    or its first line has several cells.

    Raises:
        FaultError: unreadable, no such column, no genes, or more than one name in a line.
    """
    genes = list(dict.fromkeys(name for _, name in list_rows(Path(path))))
    if not genes:
        raise FaultError.of("no-genes", path, "no genes", "one gene or more")
    return genes


def list_rows(path: Path) -> list[tuple[str, str]]:
    """(row, gene) of a gene list, e.g. ``("row 3", "TP53")``; errors as ``read_gene_list``."""
    rows = _list_column(path) if _is_table(path) else _list_lines(path)
    return [(row, name) for row, name in rows if name not in MISSING]


def _is_table(path: Path) -> bool:
    name = path.name.lower().removesuffix(".gz")
    if name.endswith((".csv", ".tsv")):
        return True
    lines = (line for _, line in read_lines(path, "one gene per line"))
    first = next((line for line in lines if not line.startswith("#")), "")
    cells = [cell.strip(' "').lower() for cell in first.split(find_delimiter(first))]
    return len(cells) > 1 and bool({*cells} & {*_LIST_COLUMNS})


def _list_lines(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in read_lines(path, "one gene per line"):
        name, where = line.split("#")[0].strip().strip('"'), f"{path} row {number}"
        # Dates may have spaces, as "2. Sep"; they are reported together.
        if name and not (_is_name(name) or find_dates([name])):
            raise FaultError.of(
                "gene-list-file", where, f"'{name[:60]}'", "one gene per line, or a .csv"
            )
        yield f"row {number}", name


def _is_name(name: str) -> bool:
    return name.isprintable() and not any(c in name for c in " ,;\t\"'")


def _list_column(path: Path) -> Iterator[tuple[str, str]]:
    expected = "a table with a column of genes"
    table = open_table(path, exact=True, comments=True, expected=expected)
    lower = {name.lower(): name for name in reversed(table.header)}
    column = next((lower[name] for name in _LIST_COLUMNS if name in lower), None)
    if column is None:
        found = f"columns {table.describe_header()}"
        near = next(filter(None, (did_you_mean(name, lower) for name in _LIST_COLUMNS)), "")
        expected = f"one of {', '.join(_LIST_COLUMNS)}{near}"
        raise FaultError.of("missing-column", path, found, expected)
    for where, gene in table.rows(column):
        yield where.removeprefix(f"{path} "), gene


def read_gene_sets(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Signature -> its genes, each once, in the order of the file.

    ``path`` may be a name of ``BUNDLED`` instead, unless there is such a file.

    ``.gmt`` (MSigDB): a line is name, description, genes, separated by tabs. ``.csv``: a column is
    a signature with its name on top; short columns are padded with empty cells or NaN, as in the
    signatures of MCAT and SurvPath.

    Raises:
        FaultError: unreadable, no signature, a signature without genes, or a name twice.
    """
    path = Path(path)
    if str(path) in BUNDLED and not path.exists():
        path = Path(str(resources.files("gimp_fast.data") / "gene_sets" / BUNDLED[str(path)]))
    is_gmt = path.name.lower().removesuffix(".gz").endswith(".gmt")
    named = _gmt(path) if is_gmt else _signature_columns(path)
    sets: dict[str, tuple[str, ...]] = {}
    for where, name, genes in named:
        genes = tuple(dict.fromkeys(gene for gene in genes if gene not in MISSING))
        if not name or not genes:
            found = f"signature '{name}' with {len(genes)} genes"
            raise FaultError.of("empty-gene-set", where, found, "a name, and genes")
        if name in sets:
            raise FaultError.of(
                "duplicate-gene-set", where, f"'{name}' again", "each signature once"
            )
        sets[name] = genes
    if not sets:
        raise FaultError.of("no-genes", path, "no signatures", "a .gmt, or a csv of signatures")
    return sets


def _gmt(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    for _, where, cells in read_rows(path, "\t", "an MSigDB .gmt"):
        if len(cells) < 3:
            expected = "name, description, genes (separated by tabs)"
            raise FaultError.of("row-length", where, f"{len(cells)} cells", expected)
        name, _, *genes = (cell.strip() for cell in cells)
        yield where, name, genes


def _signature_columns(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    table = open_table(path, expected="a csv of signatures")
    _, *columns = zip(("", *table.header), *table.rows(), strict=True)
    for number, (name, *genes) in enumerate(columns, start=1):
        is_index = number == 1 and name in ("", "Unnamed: 0") and all(g.isdigit() for g in genes)
        if not is_index:
            yield f"{path} column {number}", name, genes
