"""Files under the name of another format: read by their content, or refused by their true kind."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest
from builders.faults import faults_of

from gimp_fast.files.table import open_table

TEXT = "gene,a,b\nTP53,1,2\n"


def zip_of(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, TEXT)
    return stream.getvalue()


def tar_of(name: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return stream.getvalue()


FOREIGN = {
    "zip": (zip_of("rna.csv"), "a zip archive of 1 file (rna.csv); expected the file in it: unzip"),
    "zip-mac": (zip_of("rna.csv", "__MACOSX/._rna.csv"), "a zip archive of 1 file (rna.csv)"),
    "zip-of-three": (zip_of("a.csv", "b.csv", "c.csv", "d.csv"), "4 files (a.csv, b.csv, c.csv, …"),
    "damaged-zip": (zip_of("rna.csv")[:40], "a zip archive or Excel workbook"),
    "xlsx": (zip_of("[Content_Types].xml", "xl/workbook.xml"), "an Excel workbook (.xlsx)"),
    "ods": (zip_of("mimetype", "content.xml"), "a spreadsheet document"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook (.xls)"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\x04", "a 7z archive"),
    "zstd": (b"\x28\xb5\x2f\xfd\x04", "compressed by zstd"),
    "pickle": (pickle.dumps({"a": 1}), "a Python pickle; expected text; pickles are not loaded"),
    "parquet": (b"PAR1\x15\x04", "a Parquet file; expected text; name the file .parquet"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file; expected text; AnnData files are named .h5ad"),
    "tar": (tar_of("a.tsv"), "a tar archive"),
    "tar-gz": (gzip.compress(tar_of("a.tsv")), "a tar archive"),
    "rds": (gzip.compress(b"X\n\x00\x00\x00\x03\x00"), "an R object (.rds)"),
    "rdata": (gzip.compress(b"RDX3\nX\n"), "an R data file (.RData)"),
    "gz-twice": (gzip.compress(gzip.compress(TEXT.encode())), "compressed twice"),
    "web-page": (b"\n<!DOCTYPE html>\n<html>", "a web page; expected the file itself"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of git-lfs"),
    "rtf": (b"{\\rtf1\\ansi", "a document (rtf)"),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t"])
def test_what_is_no_text_is_named(tmp_path, kind, name):
    content, message = FOREIGN[kind]
    (tmp_path / name).write_bytes(content)
    ((found, text),) = faults_of(lambda: open_table(tmp_path / name))
    assert found == "encoding"
    assert message in text


PACKED = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "not": bytes}


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_the_content_says_how_a_file_is_compressed(tmp_path, packed, name):
    (tmp_path / name).write_bytes(PACKED[packed](TEXT.encode()))
    table = open_table(tmp_path / name, whole=True)
    assert table.records() == [{"gene": "TP53", "a": "1", "b": "2"}]


@pytest.mark.parametrize("packed", ["gz", "bz2", "xz"])
def test_compressed_files_that_are_damaged(tmp_path, packed):
    file: Path = tmp_path / "t.csv"
    whole = PACKED[packed](b"".join(b"%d,%d\n" % (n, n * n) for n in range(20_000)))
    broken = bytearray(whole)
    broken[len(broken) // 2] ^= 1
    for content in (whole[: len(whole) // 2], bytes(broken)):
        file.write_bytes(content)
        ((kind, message),) = faults_of(lambda: list(open_table(file, whole=True).rows()))
        assert kind in ("truncated-file", "unreadable-file", "row-length")
        assert str(file) in message


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_with_a_mark_and_every_line_end(tmp_path, encoding, end):
    file = tmp_path / "t.csv"
    file.write_bytes("gene,ä\nTP53,1\n".replace("\n", end).encode(encoding))
    assert open_table(file, whole=True).records() == [{"gene": "TP53", "ä": "1"}]
