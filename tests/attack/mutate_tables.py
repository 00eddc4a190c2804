"""Damage to tables: cells, rows and columns."""

from __future__ import annotations

import csv
import gzip
import io
import random

from attack.mutate_bytes import NASTY, _bytes

Rows = list[list[str]]


def _read(data: bytes) -> tuple[Rows, str]:
    text = data.decode("utf-8", "replace")
    first = text.split("\n", 1)[0]
    delimiter = "\t" if "\t" in first or "\t" in text[:2000] else ","
    return list(csv.reader(io.StringIO(text), delimiter=delimiter)), delimiter


def _write(rows: Rows, delimiter: str, quoting: int = csv.QUOTE_MINIMAL) -> bytes:
    text = io.StringIO()
    # Cells are written as they are, so that a line end in one reaches the reader.
    csv.writer(text, delimiter=delimiter, lineterminator="\n", quoting=quoting).writerows(rows)
    return _bytes(text.getvalue())


def _table(change):
    """A mutation of bytes from one of rows."""

    def mutation(data: bytes, rng: random.Random, other: bytes) -> bytes:
        rows, delimiter = _read(data)
        if not any(rows):
            return data
        result = change(rows, rng)
        return _write(rows if result is None else result, delimiter)

    mutation.__name__ = change.__name__
    return mutation


def _place(rows: Rows, rng: random.Random) -> tuple[int, int]:
    number = rng.choice([n for n, row in enumerate(rows) if row])
    return number, rng.randrange(len(rows[number]))


@_table
def nasty_cell(rows: Rows, rng: random.Random) -> None:
    row, column = _place(rows, rng)
    rows[row][column] = rng.choice(NASTY)


@_table
def nasty_header(rows: Rows, rng: random.Random) -> None:
    rows[0][rng.randrange(len(rows[0]) or 1) :][:1] = [rng.choice(NASTY)]


@_table
def nasty_prefix(rows: Rows, rng: random.Random) -> None:
    row, column = _place(rows, rng)
    parts = [rng.choice(NASTY), rows[row][column]]
    rows[row][column] = "".join(parts if rng.random() < 0.5 else parts[::-1])


@_table
def nasty_column(rows: Rows, rng: random.Random) -> None:
    _, column = _place(rows, rng)
    value = rng.choice(NASTY)
    for row in rows[1:]:
        row[column : column + 1] = [value]


@_table
def nasty_row(rows: Rows, rng: random.Random) -> None:
    row = rng.randrange(len(rows))
    rows[row] = [rng.choice(NASTY) for _ in rows[row]]


@_table
def swap_cells(rows: Rows, rng: random.Random) -> None:
    (a, b), (c, d) = _place(rows, rng), _place(rows, rng)
    rows[a][b], rows[c][d] = rows[c][d], rows[a][b]


@_table
def drop_column(rows: Rows, rng: random.Random) -> Rows:
    _, column = _place(rows, rng)
    return [row[:column] + row[column + 1 :] for row in rows]


@_table
def repeat_column(rows: Rows, rng: random.Random) -> Rows:
    _, column = _place(rows, rng)
    times = rng.choice((1, 1, 2, 300))
    return [
        row[: column + 1] + row[column : column + 1] * times + row[column + 1 :] for row in rows
    ]


@_table
def swap_columns(rows: Rows, rng: random.Random) -> Rows:
    order = list(range(max(map(len, rows))))
    rng.shuffle(order)
    return [[row[n] for n in order if n < len(row)] for row in rows]


@_table
def transpose(rows: Rows, rng: random.Random) -> Rows:
    width = max(map(len, rows))
    return [
        list(row) for row in zip(*([*row, *[""] * (width - len(row))] for row in rows), strict=True)
    ]


@_table
def ragged(rows: Rows, rng: random.Random) -> None:
    row = rows[rng.randrange(len(rows))]
    if rng.random() < 0.5:
        row += [rng.choice(NASTY)] * rng.choice((1, 1, 5, 1000))
    else:
        del row[rng.randrange(len(row) + 1) :]


@_table
def short_header(rows: Rows, rng: random.Random) -> None:
    del rows[0][0 if rng.random() < 0.7 else -1 :][:1]


@_table
def header_alone(rows: Rows, rng: random.Random) -> Rows:
    return rows[:1]


@_table
def no_header(rows: Rows, rng: random.Random) -> Rows:
    return rows[1:]


@_table
def two_headers(rows: Rows, rng: random.Random) -> Rows:
    return [rows[0], *rows]


@_table
def repeat_row(rows: Rows, rng: random.Random) -> None:
    row = rows[rng.randrange(len(rows))]
    copy = list(row)
    if copy and rng.random() < 0.5:
        copy[-1] = rng.choice(NASTY)
    rows[rng.randrange(len(rows)) :][:0] = [copy]
    rows.insert(rng.randrange(len(rows) + 1), copy)


@_table
def comment_lines(rows: Rows, rng: random.Random) -> Rows:
    return [["# made by a tool"], *rows]


@_table
def padded(rows: Rows, rng: random.Random) -> Rows:
    blank = rng.choice((" ", "\u00a0", "  "))
    return [[f"{blank}{cell}{blank}" for cell in row] for row in rows]


@_table
def other_case(rows: Rows, rng: random.Random) -> Rows:
    change = rng.choice((str.lower, str.upper, str.title, str.swapcase))
    return [[change(cell) for cell in row] for row in rows]


def other_delimiter(data: bytes, rng: random.Random, other: bytes) -> bytes:
    rows, delimiter = _read(data)
    if rng.random() < 0.3:
        rows = [[cell.replace(".", ",") for cell in row] for row in rows]
    return _write(rows, rng.choice([c for c in ",;\t| " if c != delimiter]))


def all_quoted(data: bytes, rng: random.Random, other: bytes) -> bytes:
    rows, delimiter = _read(data)
    return _write(rows, delimiter, csv.QUOTE_ALL)


def open_quote(data: bytes, rng: random.Random, other: bytes) -> bytes:
    at = rng.choice([n for n, byte in enumerate(data) if byte in b",\t\n"] or [0])
    return data[: at + 1] + b'"' + data[at + 1 :]


TABLE = (
    nasty_cell, nasty_cell, nasty_cell, nasty_cell, nasty_header, nasty_prefix, nasty_prefix,
    nasty_column, nasty_row, swap_cells, drop_column, repeat_column, swap_columns, transpose,
    ragged, short_header, header_alone, no_header, two_headers, repeat_row, comment_lines, padded,
    other_case, other_delimiter, all_quoted, open_quote,
)  # fmt: skip


def inside_gzip(mutation):
    """The same damage to what a gzip file holds."""

    def changed(data: bytes, rng: random.Random, other: bytes) -> bytes:
        return gzip.compress(mutation(gzip.decompress(data), rng, other), mtime=0)

    changed.__name__ = f"{mutation.__name__}_in_gzip"
    return changed


def gzip_bomb(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """64 MB of one line, or a million lines."""
    piece, times = rng.choice(
        (
            (b"0" * (1 << 20), 64),
            (bytes(1 << 20), 64),
            (b"gene\t1\n" * (1 << 16), 16),
            (b"\n" * (1 << 16), 16),
        )
    )
    text = io.BytesIO()
    with gzip.GzipFile(fileobj=text, mode="wb", mtime=0, compresslevel=1) as file:
        file.write(gzip.decompress(data)[:100])
        for _ in range(times):
            file.write(piece)
    return text.getvalue()
