"""What a file is by its first bytes: users' files often have the name of another format."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
import zlib
from pathlib import Path
from typing import IO

PARQUET = b"PAR1"
# What reading a file may raise, also a compressed one.
READ_ERRORS = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)
_PACKED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_HEAD = 1024  # bytes looked at
_TAR = 257  # where a tar archive says what it is
_SAVE_TEXT = "text: save the sheet as csv or as tab-separated text"
_UNPACK = "the file in it: unpack it first"
_FROM_R = "text: write it in R with write.csv"
# Longer beginnings before shorter ones.
_KINDS: dict[bytes, tuple[str, str]] = {
    PARQUET: ("a Parquet file", "text; name the file .parquet"),
    b"\x89HDF\r\n\x1a\n": ("an HDF5 file", "text; AnnData files are named .h5ad"),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook (.xls)", _SAVE_TEXT),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", _UNPACK),
    b"Rar!": ("a rar archive", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("a file compressed by zstd", "it unpacked (`zstd -d`), or as .gz"),
    b"\x1f\x9d": ("a file compressed by compress (.Z)", "it unpacked, or as .gz"),
    b"\x93NUMPY": ("a numpy array", "text with the names of genes and samples"),
    b"ARROW1": ("a Feather file", "text or Parquet"),
    b"FEA1": ("a Feather file", "text or Parquet"),
    b"RDX": ("an R data file (.RData)", _FROM_R),
    b"RDA": ("an R data file (.RData)", _FROM_R),
    b"X\n\x00\x00\x00": ("an R object (.rds)", _FROM_R),
    b"%PDF": ("a PDF", "text"),
    b"{\\rtf": ("a document (rtf)", "plain text: save it without formatting"),
    b"version https://git-lfs": ("a pointer of git-lfs, not the file", "it (`git lfs pull`)"),
    b"%%MatrixMarket": ("a Matrix Market file", "a table with the names of genes and samples"),
    b"SQLite format 3": ("an SQLite database", "text"),
}


def open_unpacked(path: Path) -> tuple[IO[bytes], bool]:
    """The bytes of a file, decompressed if it is gzip, bz2 or xz, and whether it was.

    The content decides, not the name: browsers unpack downloads and keep their names.

    Raises:
        OSError: it cannot be opened.
    """
    with path.open("rb") as stream:
        start = stream.read(6)
    opener = next((opener for magic, opener in _PACKED.items() if start.startswith(magic)), None)
    return (opener(path, "rb"), True) if opener else (path.open("rb"), False)


def read_head(path: Path) -> bytes:
    """The first bytes of a file, decompressed; an error as ``READ_ERRORS``."""
    stream, _ = open_unpacked(path)
    with stream:
        return stream.read(_HEAD)


def foreign_kind(path: Path, head: bytes) -> tuple[str, str] | None:
    """(what it is, what was expected) of a file that is no text; None if it may be text."""
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(path)
    if head.startswith(tuple(_PACKED)):
        return "a file that was compressed twice", "it unpacked once"
    if head[_TAR : _TAR + 5] == b"ustar":
        return "a tar archive", "the files in it: unpack it with `tar -xf`"
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        expected = "text; pickles are not loaded, as they can run code: write it with to_csv"
        return "a Python pickle", expected
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return "a web page", "the file itself: download it again"
    return next((kind for magic, kind in _KINDS.items() if head.startswith(magic)), None)


def _zip_kind(path: Path) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
    except (*READ_ERRORS, zipfile.BadZipFile, NotImplementedError):
        return "a zip archive or Excel workbook", _SAVE_TEXT
    if any(name.startswith("xl/") for name in names):
        return "an Excel workbook (.xlsx)", _SAVE_TEXT
    if "content.xml" in names or any(name.startswith("Index/") for name in names):
        return "a spreadsheet document", _SAVE_TEXT
    names = [name for name in names if not name.startswith("__MACOSX/")]
    listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    files = "1 file" if len(names) == 1 else f"{len(names)} files"
    return f"a zip archive of {files} ({listed[:120]})", "the file in it: unzip it first"
