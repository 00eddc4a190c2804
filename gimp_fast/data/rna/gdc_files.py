"""Single RNA-seq files of GDC: augmented STAR counts, and the older files of two columns.

One regular expression over all bytes of a file extracts the gene ids and the column asked for, and
checks that every line has the right number of cells.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gimp_fast.data.rna.values import gene_row, is_summary
from gimp_fast.errors import FaultError
from gimp_fast.files.numbers import number
from gimp_fast.files.text import read_bytes

STAR_SUFFIX = ".rna_seq.augmented_star_gene_counts.tsv"
STAR_NAMES = ("gene_id", "gene_name", "gene_type")
_MODEL = b"# gene-model:"
_TWO = ("gene id", "value")
_CELL, _KEPT = rb"[^\t\r\n]*", rb"([^\t\r\n]*)"


@dataclass(frozen=True)
class GdcFile:
    """One file.

    Attributes:
        digest: of the ordered gene list; comparing it replaces comparing 60,000 ids.
        values: (G,) float32; NaN for missing values.
        gene_model: as the file says, e.g. ``GENCODE v36``.
        summary: names of the aligner's summary rows.
    """

    digest: bytes
    values: np.ndarray
    gene_model: str | None
    summary: tuple[str, ...]


def read_gdc_file(path: Path, column: str) -> GdcFile:
    """One unit of a STAR file or of a two-column file, which are recognised by their names.

    Raises:
        FaultError: missing, unreadable, cut short, or without the column.
    """
    if not path.is_file():
        raise FaultError.of("missing-file", path, "no such file", "a file of the sample sheet")
    model, rows = _read_cells(path, ("gene_id", column))
    # A first look at two letters saves decoding 60,000 ids.
    marked = [row[0] for row in rows if row[0][:2] in (b"N_", b"__")]
    marked = [id for id in marked if is_summary(id.decode().strip())]
    rows = [row for row in rows if row[0] not in marked]
    texts = [text for _, text in rows]
    try:
        if b"_" in b"".join(texts):  # float accepts 1_000
            raise ValueError
        values = np.fromiter(map(float, texts), np.float64, len(texts))
    except ValueError:
        column = column if STAR_SUFFIX in path.name else _TWO[1]
        values = np.array(
            [number(text.decode(), column, f"{path} gene {id.decode()}") for id, text in rows]
        )
    with np.errstate(over="ignore"):  # infinite values are reported by later checks
        values = values.astype(np.float32)
    digest = hashlib.blake2b(b"\n".join(id for id, _ in rows)).digest()
    return GdcFile(digest, values, model, tuple(id.decode().strip() for id in marked))


def read_gene_rows(path: Path) -> list[dict[str, str]]:
    """Rows gene_id, gene_name, gene_type of a file; names and types are empty in old files."""
    width = len(STAR_NAMES) if STAR_SUFFIX in path.name else 1
    _, cells = _read_cells(path, STAR_NAMES)
    rows = [gene_row(*(cell.decode().strip() for cell in row[:width])) for row in cells]
    return [row for row in rows if not is_summary(row["gene_id"])]


def _read_cells(path: Path, names: tuple[str, ...]) -> tuple[str | None, list[tuple[bytes, ...]]]:
    """Gene model, and these cells of every row; of an old file both of its cells."""
    if STAR_SUFFIX not in path.name:
        data = read_bytes(path, "two columns: gene id, value")
        return None, _columns(path, data, 0, _TWO, _TWO)
    data = read_bytes(path, f"a STAR counts table with {', '.join(names)}")
    model, start, header = _star_header(path, data)
    return model, _columns(path, data, start, header, names)


def _star_header(path: Path, data: bytes) -> tuple[str | None, int, tuple[str, ...]]:
    """Gene model, where the rows start, and column names."""
    model, start = None, 0
    while data.startswith(b"#", start):
        end = data.index(b"\n", start) + 1
        if data.startswith(_MODEL, start):
            model = data[start + len(_MODEL) : end].decode().strip()
        start = end
    end = data.find(b"\n", start) + 1
    header = tuple(cell.decode().strip() for cell in data[start:end].split(b"\t"))
    missing = [name for name in STAR_NAMES if name not in header]
    if missing:
        kind = "missing-column" if end else "unreadable-file"
        found = f"no column {', '.join(missing)} in the header" if end else "no header"
        raise FaultError.of(kind, path, found, "a STAR counts table")
    return model, end, header


def _columns(
    path: Path, data: bytes, start: int, header: tuple[str, ...], names: tuple[str, ...]
) -> list[tuple[bytes, ...]]:
    """The named cells of every row."""
    missing = [name for name in names if name not in header]
    if missing:
        found = f"no column '{missing[0]}' among {', '.join(header)[:200]}"
        expected = f"a STAR counts table with '{missing[0]}'"
        raise FaultError.of("missing-column", path, found, expected)
    places = [header.index(name) for name in names]
    cells = [_KEPT if n in places else _CELL for n in range(len(header))]
    body = memoryview(data)[start:]
    rows = re.findall(rb"(?m)^" + rb"\t".join(cells) + rb"\r?\n", body)
    if len(rows) != data.count(b"\n", start):
        _blame_row(path, data, len(header))
    if not rows:
        raise FaultError.of("unreadable-file", path, "no rows", "one row per gene")
    if places != sorted(places):
        order = [sorted(places).index(place) for place in places]
        rows = [tuple(row[n] for n in order) for row in rows]
    return rows


def _blame_row(path: Path, data: bytes, width: int) -> None:
    """Raise a FaultError that names the first row with a wrong number of cells."""
    for row, line in enumerate(data.split(b"\n")[:-1], start=1):
        cells = line.count(b"\t") + 1
        odd = b"\r" in line.removesuffix(b"\r")
        if not line.startswith(b"#") and (cells != width or odd):
            found = "a carriage return inside the line" if odd else f"{cells} cells"
            expected = f"{width} cells as in the header"
            raise FaultError.of("row-length", f"{path} row {row}", found, expected)
    raise FaultError.of("row-length", path, "rows of other layouts", f"{width} cells in each")
