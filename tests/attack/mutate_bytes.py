"""Damage that needs no knowledge of a format, and damage to text."""

from __future__ import annotations

import gzip
import random
import zlib

# Cells that users, spreadsheets and attackers write.
NASTY = (
    "", " ", "nan", "NaN", "inf", "-inf", "1e308", "1e400", "-1", "0", "1e-320", "9" * 400,
    "0x10", "1_000", "１２", "٣", "True", "None", "null", "#N/A", "1,5", "'", '"', '""', "\\",
    "=1+1", "=cmd|' /C calc'!A0", "+1", "-2+3", "@SUM(A1)", "=HYPERLINK(\"http://x\")",
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "&lt;b&gt;", "{{7*7}}", "${HOME}",
    "%s%n%x", "../../secret", "../../../../etc/passwd", "/etc/passwd", "..", ".", "/", "~", "a/b",
    "C:\\x", "file:///etc/passwd", "con", ".hidden", "a\x00b", "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07", "\x07", "\x08\x08", "\r", "a\rb", "a\nb", "a\tb", "\u202egnp.exe", "\u200b",
    "\ufeff", "é", "e\u0301", "漢字", "😀", "\ud7ff", "\U0010ffff", "A" * 10_000, "\u0130", "ß",
    "TCGA-AA-0000", "TCGA-AA-0003-01A", "|", ";", ",", "\t", "--out", "-h", "2-Sep", "MARCH1",
    "train", "val", "X", "Y", "case_id", "label",
)  # fmt: skip
_MAX = 1 << 22


def flip_bits(data: bytes, rng: random.Random, other: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8, 64))):
        if out:
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def flip_early_bits(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Formats say near the start what follows."""
    out = bytearray(data)
    if out:
        for _ in range(rng.choice((1, 1, 2, 4))):
            out[rng.randrange(min(len(out), 512))] ^= 1 << rng.randrange(8)
    return bytes(out)


def flip_late_bits(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Archives say at the end what they hold."""
    return flip_early_bits(data[::-1], rng, other)[::-1]


def set_bytes(data: bytes, rng: random.Random, other: bytes) -> bytes:
    out, value = bytearray(data), rng.choice((0, 1, 127, 128, 255, 10, 13, 34, 44))
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if out:
            out[rng.randrange(len(out))] = value
    return bytes(out)


def set_number(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """A number of 2, 4 or 8 bytes in a place where one may be."""
    size, limit = rng.choice((2, 4, 8)), len(data)
    if limit < size:
        return b""
    value = rng.choice(
        (0, 1, -1, 2, 255, 256, (1 << 8 * size - 1) - 1, -(1 << 8 * size - 1), 1 << 8 * size - 2)
    )
    at = rng.randrange(0, min(limit, rng.choice((64, 1024, limit))) - size + 1) & -rng.choice(
        (1, 2, size)
    )
    return (
        data[:at]
        + (value % (1 << 8 * size)).to_bytes(size, rng.choice(("little", "big")))
        + data[at + size :]
    )


def truncate(data: bytes, rng: random.Random, other: bytes) -> bytes:
    return data[: rng.choice((0, 1, 8, max(0, len(data) - 1), rng.randrange(len(data) + 1)))]


def cut_start(data: bytes, rng: random.Random, other: bytes) -> bytes:
    return data[rng.randrange(len(data) + 1) :]


def extend(data: bytes, rng: random.Random, other: bytes) -> bytes:
    return data + rng.choice(
        (b"\0", b"\n", b"x", data[:100], rng.randbytes(rng.choice((1, 100, 5000))))
    )


def _block(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 4, 16, 128, 1024, 8192)))


def zero_block(data: bytes, rng: random.Random, other: bytes) -> bytes:
    start, stop = _block(data, rng)
    return data[:start] + bytes(stop - start) + data[stop:]


def random_block(data: bytes, rng: random.Random, other: bytes) -> bytes:
    start, stop = _block(data, rng)
    return data[:start] + rng.randbytes(stop - start) + data[stop:]


def remove_block(data: bytes, rng: random.Random, other: bytes) -> bytes:
    start, stop = _block(data, rng)
    return data[:start] + data[stop:]


def duplicate_block(data: bytes, rng: random.Random, other: bytes) -> bytes:
    start, stop = _block(data, rng)
    return data[:stop] + data[start:stop] * rng.choice((1, 1, 2, 100)) + data[stop:]


def swap_blocks(data: bytes, rng: random.Random, other: bytes) -> bytes:
    size = rng.choice((1, 8, 64, 512))
    if len(data) < 2 * size:
        return data[::-1]
    a, b = sorted(rng.randrange(len(data) - size + 1) for _ in range(2))
    if b < a + size:
        return data[:a] + data[b : b + size] + data[a:]
    return (
        data[:a] + data[b : b + size] + data[a + size : b] + data[a : a + size] + data[b + size :]
    )


def splice(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """A part of a file of another kind."""
    start, stop = _block(data, rng)
    begin, end = _block(other, rng)
    return data[:start] + other[begin:end] + data[stop:]


def replace(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Another file under this name."""
    return rng.choice(
        (other, b"", b"\0" * 4096, b"\n" * 10, b"%PDF-1.4\n", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n")
    )


def compressed(data: bytes, rng: random.Random, other: bytes) -> bytes:
    return rng.choice((gzip.compress(data, mtime=0), zlib.compress(data)))


BYTES = (
    flip_bits, flip_bits, flip_early_bits, flip_early_bits, flip_late_bits, set_bytes, set_number,
    set_number, truncate, cut_start, extend, zero_block, random_block, remove_block,
    duplicate_block, swap_blocks, splice, replace, compressed,
)  # fmt: skip


def _lines(data: bytes) -> list[str]:
    return data.decode("utf-8", "surrogateescape").split("\n")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")[:_MAX]


def shuffle_lines(data: bytes, rng: random.Random, other: bytes) -> bytes:
    lines = _lines(data)
    rng.shuffle(lines)
    return _bytes("\n".join(lines))


def repeat_line(data: bytes, rng: random.Random, other: bytes) -> bytes:
    lines = _lines(data)
    at = rng.randrange(len(lines))
    return _bytes("\n".join([*lines[:at], *[lines[at]] * rng.choice((1, 2, 300)), *lines[at:]]))


def drop_line(data: bytes, rng: random.Random, other: bytes) -> bytes:
    lines = _lines(data)
    del lines[rng.randrange(len(lines))]
    return _bytes("\n".join(lines))


def nasty_line(data: bytes, rng: random.Random, other: bytes) -> bytes:
    lines = _lines(data)
    lines[rng.randrange(len(lines))] = rng.choice(NASTY)
    return _bytes("\n".join(lines))


def other_line_ends(data: bytes, rng: random.Random, other: bytes) -> bytes:
    return data.replace(
        b"\n", rng.choice((b"\r", b"\r\n", b"\n\n", b"\n\r", b"\x0b", b"\x85", b"\xe2\x80\xa8"))
    )


def no_last_line_end(data: bytes, rng: random.Random, other: bytes) -> bytes:
    return data.rstrip(b"\n")


def other_encoding(data: bytes, rng: random.Random, other: bytes) -> bytes:
    text = data.decode("utf-8", "replace")
    return text.encode(
        rng.choice(("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7", "cp037")),
        "replace",
    )


def not_utf8(data: bytes, rng: random.Random, other: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return (
        data[:at]
        + rng.choice((b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xe9", b"\x80" * 50))
        + data[at:]
    )


def insert_text(data: bytes, rng: random.Random, other: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + _bytes(rng.choice(NASTY)) + data[at:]


LINES = (
    shuffle_lines, repeat_line, drop_line, nasty_line, nasty_line, other_line_ends,
    no_last_line_end, other_encoding, not_utf8, insert_text, insert_text,
)  # fmt: skip
