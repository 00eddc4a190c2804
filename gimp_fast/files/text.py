"""Lines of text files: their compression, encoding and line ends, read strictly."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from pathlib import Path

from gimp_fast.errors import FaultError, one_line
from gimp_fast.files.kinds import READ_ERRORS, foreign_kind, open_unpacked, read_head

_LONGEST_LINE = 1 << 28  # characters; a longer line need not fit in memory
# Bytes that are not UTF-8, as surrogateescape keeps them.
_UNDECODED = re.compile("[\udc80-\udcff]")
_PLAIN = "plain UTF-8 text"
# UTF-32 first: the mark of UTF-16 is the beginning of its mark.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_lines(path: Path, expected: str, *, whole: bool = False) -> Iterator[tuple[int, str]]:
    r"""(number from 1, line without its end) of each line that is not blank.

    UTF-8 with or without a byte order mark, UTF-16 and UTF-32 with one (Excel's "Unicode text");
    lines end with ``\n``, ``\r\n`` or ``\r``; gzip, bz2 and xz are decompressed.

    Raises:
        FaultError: unreadable, not text; or, if ``whole``, a last line that does not end.
    """
    try:
        encoding = _encoding(path)
        errors = "surrogateescape" if encoding == "utf-8-sig" else "strict"
        stream, packed = open_unpacked(path)
        with io.TextIOWrapper(stream, encoding, errors) as text:
            line = "\n"
            for number, line in enumerate(iter(lambda: text.readline(_LONGEST_LINE), ""), 1):
                _check_encoding(line, f"{path} row {number}")
                if len(line) == _LONGEST_LINE:
                    found = f"{len(line)} characters without line end"
                    raise FaultError.of("unreadable-file", f"{path} row {number}", found, expected)
                if line.strip(" \n"):
                    yield number, line.removesuffix("\n")
        # The checksum of a compressed file says that nothing is missing.
        if whole and not line.endswith("\n") and not packed:
            raise _cut_short(path)
    except READ_ERRORS as error:
        raise _unreadable(path, error, expected) from error


def read_bytes(path: Path, expected: str) -> bytes:
    r"""A whole text file as UTF-8 whose last line ends: a number cut short is another number.

    Lines end with ``\n`` or ``\r\n``.

    Raises:
        FaultError: unreadable, not text, or cut short.
    """
    try:
        encoding = _encoding(path)
        stream, packed = open_unpacked(path)
        with stream:
            data = stream.read()
        if encoding != "utf-8-sig":
            data = data.decode(encoding).encode("utf-8")
    except READ_ERRORS as error:
        raise _unreadable(path, error, expected) from error
    if not data.isascii() or b"\0" in data:
        _check_encoding(data.decode("utf-8-sig", "surrogateescape"), str(path))
    if b"\n" not in data:  # as old programs of the Mac end lines
        data = data.replace(b"\r", b"\n")
    if data and not data.endswith(b"\n"):
        if not packed:
            raise _cut_short(path)
        data += b"\n"
    return data.removeprefix(codecs.BOM_UTF8)


def read_text(path: Path, expected: str) -> str:
    """Text of a file; FaultError as ``read_lines``."""
    return "\n".join(line for _, line in read_lines(path, expected))


def _encoding(path: Path) -> str:
    """The encoding by its mark; FaultError for a file that is no text."""
    head = read_head(path)
    if kind := foreign_kind(path, head):
        raise FaultError.of("encoding", path, *kind)
    return next((name for mark, name in _MARKS.items() if head.startswith(mark)), "utf-8-sig")


def _check_encoding(text: str, where: str) -> None:
    """FaultError if text that was decoded with surrogateescape was not UTF-8."""
    if "\0" in text:
        found = "a NUL character, as in UTF-16 text without its mark or in a damaged file"
        raise FaultError.of("encoding", where, found, _PLAIN)
    if not text.isascii() and (bad := _UNDECODED.search(text)):
        found = f"another encoding (byte 0x{ord(bad[0]) - 0xDC00:02x} at position {bad.start()})"
        raise FaultError.of("encoding", where, found, _PLAIN)


def _cut_short(path: Path) -> FaultError:
    found = "a last line without its end, as in a file that was cut short"
    expected = "a line end after the last number. If the file is complete (Google Sheets leaves "
    expected += f"the line end out), add it: `echo >> {path.name}`"
    return FaultError.of("truncated-file", path, found, expected)


def _unreadable(path: Path, error: BaseException, expected: str) -> FaultError:
    if isinstance(error, FileNotFoundError):
        return FaultError.of("missing-file", path, "no such file", expected)
    kind = "truncated-file" if isinstance(error, EOFError) else "unreadable-file"
    return FaultError.of(kind, path, one_line(error), expected)
