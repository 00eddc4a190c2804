"""The reader of text tables: strict about cells, quotes and encodings; exact about numbers."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from builders.faults import faults_of
from builders.rna_files import write_text

from gimp_fast.files.table import open_table
from gimp_fast.files.text import read_text


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_columns_by_name_and_all(tmp_path, name):
    file = write_text(tmp_path / name, "\ufeffa; b ;c\n1; 2\n\n;;\n3;4;5\n")
    table = open_table(file)
    assert (table.header, table.delimiter) == (("a", "b", "c"), ";")
    assert list(table.rows("c", "a")) == [(f"{file} row 2", "", "1"), (f"{file} row 5", "5", "3")]
    assert table.records() == [
        {"a": "1", "b": "2", "c": ""},
        {"a": "3", "b": "4", "c": "5"},
    ]


def test_a_cell_in_quotes_may_contain_everything(tmp_path):
    file = write_text(tmp_path / "t.csv", 'a,b\n"x, ""y""\nz",1\n2,3\n')
    assert [cells for _, *cells in open_table(file).rows()] == [['x, "y"\nz', "1"], ["2", "3"]]
    ((kind, message),) = faults_of(lambda: list(open_table(file, ",", whole=True).rows()))
    assert (kind, "row 2" in message) == ("unreadable-file", True)


@pytest.mark.parametrize(
    ("text", "options", "kind", "where"),
    [
        ("a,b\n1,2,3\n", {}, "row-length", "row 2"),
        ("a,b\n1\n", {"exact": True}, "row-length", "row 2"),
        ("a,b\n1,2", {"whole": True}, "truncated-file", "t.csv"),
        ('a,b\n"1,2\n3,4\n', {}, "unreadable-file", "row 2"),
        ("a,b\n1,\x002\n", {}, "encoding", "row 2"),
    ],
)
def test_faults_name_the_row(tmp_path, text, options, kind, where):
    file = write_text(tmp_path / "t.csv", text)
    ((found, message),) = faults_of(lambda: list(open_table(file, ",", **options).rows()))
    assert found == kind
    assert where in message


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16-be", "utf-16-le", "utf-32-le", "cp1252"])
def test_other_encodings(tmp_path, encoding):
    for file in (tmp_path / "t.csv", tmp_path / "t.csv.gz"):
        content = "a,b\nü,1\n".encode(encoding)
        file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
        for read in (lambda f=file: list(open_table(f).rows()), lambda f=file: read_text(f, "x")):
            ((kind, message),) = faults_of(read)
            assert (kind, str(file) in message) == ("encoding", True)


def test_numbers_with_their_row_and_column(tmp_path):
    file = write_text(tmp_path / "t.csv", "id,x,y\na,1.5,NA\nb, 2 ,-1e-3\nc,,nan\n")
    table = open_table(file, ",", exact=True, whole=True)
    block = table.read([0], [2, 1])
    assert (block.rows, block.texts) == ([2, 3, 4], [["a"], ["b"], ["c"]])
    expected = np.array([[np.nan, 1.5], [-1e-3, 2], [np.nan, np.nan]], np.float32)
    np.testing.assert_array_equal(block.values, expected)
    assert table.read([0], [1], rows={3}).texts == [["b"]]
    assert table.read([0], limit=1).values.shape == (1, 0)
    file = write_text(tmp_path / "t.csv", "id,x,y\na,1.5,2\nb,1_0,3\n")
    ((kind, message),) = faults_of(lambda: open_table(file).read([0], [2, 1]))
    assert kind == "unreadable-file"
    assert "row 3: found '1_0' in column 'x'" in message


def test_columns_that_are_missing_or_repeated(tmp_path):
    table = open_table(write_text(tmp_path / "t.csv", "a,b,b\n1,2,3\n"))
    assert [kind for kind, _ in faults_of(lambda: table.require("c"))] == ["missing-column"]
    assert [kind for kind, _ in faults_of(lambda: table.require("b"))] == ["duplicate-column"]
    assert table.one_of("x", "a") == "a"
    assert faults_of(lambda: table.one_of("x", "y"))[0][0] == "missing-column"
