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


@pytest.mark.parametrize(
    ("text", "delimiter", "header"),
    [
        ("a\tb, c\td\n", "\t", ("a", "b, c", "d")),
        ("a;b;c\n", ";", ("a", "b", "c")),
        ('"x, y";"z, w"\n', ";", ("x, y", "z, w")),
        ("a,b c\n", ",", ("a", "b c")),
        ("a b\n", ",", ("a b",)),
        ("a\n", ",", ("a",)),
    ],
)
@pytest.mark.parametrize("end", [".csv", ".tsv", ".txt"])
def test_the_header_says_what_separates_cells(tmp_path, text, delimiter, header, end):
    table = open_table(write_text(tmp_path / f"t{end}", text))
    assert (table.delimiter, table.header) == (delimiter, header)


NUMBERS = {
    "r": '"s1"\t"s2"\n"TP53"\t1\t2.5\n',
    "r-spaces": '"s1" "s2"\n"TP53" 1 2.5\n',
    "r-spaces-without-quotes": "s1 s2\nTP53 1 2.5\n",
    "r-csv2": '"";"s1";"s2"\n"TP53";1;2,5\n',
    "r-table-with-semicolons": '"s1";"s2"\n"TP53";1;2,5\n',
    "points-with-semicolons": ";s1;s2\nTP53;1;2.5\n",
    "quoted-numbers": '"","s1","s2"\n"TP53","1","2.5"\n',
    "comment": '# Program:x; Command:"a" "-o" "b, c"\n\ts1\ts2\nTP53\t1\t2.5\n',
    "two-comments": "# made on 5 May\n#\n\ts1\ts2\nTP53\t1\t2.5\n",
    "excel-sep": "sep=;\n;s1;s2\nTP53;1;2,5\n",
    "gct": "#1.2\n1\t2\n\ts1\ts2\nTP53\t1\t2.5\n",
}


@pytest.mark.parametrize("case", NUMBERS)
def test_tables_of_numbers_as_tools_write_them(tmp_path, case):
    file = write_text(tmp_path / "t.txt", NUMBERS[case])
    table = open_table(file, exact=True, whole=True)
    assert table.header == ("", "s1", "s2")
    block = table.read([0], [1, 2])
    assert block.texts == [["TP53"]]
    np.testing.assert_array_equal(block.values, [[1, 2.5]])


def test_a_header_that_begins_with_a_hash(tmp_path):
    table = open_table(write_text(tmp_path / "t.tsv", "#id\ts1\nA\t1\n"), exact=True, whole=True)
    assert table.header == ("id", "s1")
    assert table.read([0], [1]).texts == [["A"]]


@pytest.mark.parametrize(
    ("text", "corners", "header"),
    [
        ("id\ts1\nA\t1\t2\n", (), ("", "id", "s1")),
        ("id\ts1\nA\t1\t2\n", ("id",), ("id", "s1")),
        ("id\ts1\n1\tA\t2\n", ("id",), ("", "id", "s1")),
        ("s1\ts2\nA\t1\t\n", (), ("s1", "s2")),
    ],
    ids=["r", "a-cell-too-many", "row-numbers-of-r", "trailing-tab"],
)
def test_a_header_one_cell_short(tmp_path, text, corners, header):
    file = write_text(tmp_path / "t.tsv", text)
    assert open_table(file, exact=True, whole=True, corners=corners).header == header


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("g;a;b\nG;1.234,5;2\n", "both decimal commas and points"),
        ("g;a;b\nG;1,5;2\nH;1.5;2\n", "both decimal commas and points ('1,5', '1.5')"),
        ("g;a;b\nG;1,234;2,500\n", "each comma may separate thousands"),
        ("g;a;b\nG;1,234,567;2\n", "without thousands separators"),
        ("g\ta\tb\nG\t1,5\t2\n", "such as 1234.5, without thousands separators"),
        ('g,a,b\nG,"1,234.5",2\n', "such as 1234.5, without thousands separators"),
        ("g\ta\tb\nG\t1.234.567\t2\n", "without thousands separators"),
        ("g\ta\tb\nG\t1 234\t2\n", "without thousands separators"),
        ("g\ta\tb\nG\t1\u202f234\t2\n", "without thousands separators"),
        ("g\ta\tb\nG\t1'234\t2\n", "without thousands separators"),
    ],
)
def test_numbers_that_may_mean_two_things(tmp_path, text, message):
    table = open_table(write_text(tmp_path / "t.csv", text), exact=True, whole=True)
    ((kind, found),) = faults_of(lambda: table.read([0], [1, 2]))
    assert kind == "unreadable-file"
    assert message in found


def test_a_last_line_without_its_end_says_how_to_go_on(tmp_path):
    table = open_table(write_text(tmp_path / "t.csv", "g,a\nG,1"), whole=True)
    ((kind, message),) = faults_of(lambda: list(table.rows()))
    assert kind == "truncated-file"
    assert "cut short" in message
    assert "`echo >> t.csv`" in message


def test_the_line_that_tells_excel_the_separator(tmp_path):
    table = open_table(write_text(tmp_path / "t.csv", "sep=;\na;b\n1;2\n"))
    assert table.records() == [{"a": "1", "b": "2"}]


def test_faults_say_which_separator_was_taken_and_how_r_writes(tmp_path):
    file = write_text(tmp_path / "t.csv", '"a" "b"\n"x" "y"\n')
    ((_, message),) = faults_of(lambda: open_table(file))
    assert "commas between them" in message
    file = write_text(tmp_path / "t.csv", '"a","b"\n"1","x","y"\n')
    ((kind, message),) = faults_of(lambda: list(open_table(file).rows()))
    assert kind == "row-length"
    assert "found 3 cells; expected 2 as in the header" in message
    assert "use col.names=NA" in message
