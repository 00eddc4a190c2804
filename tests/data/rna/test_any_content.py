"""Any cell, shape, column or gene list: what was written, or a fault."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders.rna_files import (
    write_text,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gimp_fast.data.rna.expression import open_expression
from gimp_fast.data.rna.gene_lists import read_gene_list, read_gene_sets
from gimp_fast.errors import FaultError

EXAMPLES = int(os.environ.get("GIMP_FAST_FUZZ", "30"))
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def check_sound(ids: list[str], expression) -> None:
    """Whatever was read has the shape it says, and finite float32."""
    assert expression.values.dtype == np.float32
    assert expression.values.shape == (len(ids), len(expression.genes))
    assert np.isfinite(expression.values).all()
    gene_ids = [row["gene_id"] for row in expression.genes]
    assert all(gene_ids)
    assert len(set(gene_ids)) == len(gene_ids)


def damage(content: bytes, share: float, bit: int, cut: bool) -> bytes:
    at = int(share * len(content))
    if cut:
        return content[:at]
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


DAMAGE = {
    "share": st.floats(0, 1, exclude_max=True),
    "bit": st.integers(0, 7),
    "cut": st.booleans(),
}


CELLS = st.one_of(
    st.text(max_size=12),
    st.floats(width=32).map(repr),
    st.integers().map(str),
    st.sampled_from(
        ["True", "1_0", "0x1", "1,5", "NA", "", "-", "1e5", "1e400", "١", " 2 ", "inf"]
    ),
)


@pytest.mark.parametrize("orientation", ["genes-in-rows", "samples-in-rows"])
@pytest.mark.parametrize("end", ["csv", "tsv", "tsv.gz"])
@fuzzed
@given(cell=CELLS)
def test_any_cell(tmp_path, orientation, end, cell):
    delimiter = "," if end == "csv" else "\t"
    text = f"x{delimiter}a{delimiter}b\nc{delimiter}1{delimiter}2\nd{delimiter}3{delimiter}{cell}\n"
    try:
        write_text(tmp_path / f"t.{end}", text)
    except UnicodeEncodeError:  # lone surrogates cannot be written
        return
    try:
        source = open_expression(tmp_path / f"t.{end}", orientation=orientation)
        values = source.read(source.samples).values
    except FaultError:
        return
    expected = np.array([[1, 2], [3, float(cell.strip().strip('"'))]], np.float32)
    assert "_" not in cell
    assert cell.isascii()
    np.testing.assert_array_equal(
        values, expected if orientation == "samples-in-rows" else expected.T
    )


ROWS = st.lists(
    st.lists(st.sampled_from(["1", "2.5", "A", "case_id", "", "TCGA-00-0001-01A", '"', "-3"])),
    max_size=6,
)


@pytest.mark.parametrize("orientation", ["auto", "genes-in-rows", "samples-in-rows"])
@pytest.mark.parametrize("corner", ["id", "case_id", "Hugo_Symbol\tEntrez_Gene_Id", "A_rnaseq"])
@fuzzed
@given(rows=ROWS, names=st.lists(st.sampled_from(["s", "t", "u", ""]), max_size=3))
def test_any_shape(tmp_path, orientation, corner, rows, names):
    lines = ["\t".join([corner, *names]), *("\t".join(row) for row in rows)]
    write_text(tmp_path / "t.tsv", "\n".join(lines) + "\n")
    try:
        source = open_expression(tmp_path / "t.tsv", orientation=orientation)
        expression = source.read(source.samples)
    except FaultError:
        return
    check_sound([sample.barcode for sample in source.samples], expression)


COLUMNS = st.one_of(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=2),
    st.lists(st.integers(-(2**62), 2**62), min_size=2, max_size=2),
    st.sampled_from(
        [
            [True, False],
            ["1", "2"],
            [b"a", b"b"],
            [None, 1.5],
            [None, None],
            [pd.Timestamp("2020-01-01")] * 2,
            [[1.0], [2.0]],
            [np.nan, 1],
            [1e300, 1],
            pd.Categorical(["a", "b"]),
            pd.array([1, None], "Int8"),
            np.array([1, 2], np.float16),
            np.array([1, 2], np.uint8),
        ]
    ),
)


NUMBERS = "iuf"


@pytest.mark.parametrize("orientation", ["genes-in-rows", "samples-in-rows"])
@fuzzed
@given(column=COLUMNS)
def test_any_parquet_column(tmp_path, orientation, column):
    frame = pd.DataFrame({"id": ["a", "b"], "x": [1.0, 2.0], "y": column})
    frame.to_parquet(tmp_path / "t.parquet")
    try:
        source = open_expression(tmp_path / "t.parquet", orientation=orientation)
        values = source.read(source.samples).values
    except FaultError:
        finite = frame["y"].dtype.kind in NUMBERS and np.isfinite(
            np.asarray(frame["y"].astype("float64"), np.float32)
        )
        assert not np.all(finite)
        return
    expected = frame[["x", "y"]].to_numpy(np.float32)
    if orientation == "samples-in-rows":  # a gene without any value is left out
        expected = expected[:, ~np.isnan(expected).all(0)]
    expected = expected if orientation == "samples-in-rows" else expected.T
    np.testing.assert_array_equal(values, expected)


LISTS = {
    "list.txt": "# mine\nTP53\nRP11-34P13.7\nENSG00000141510.18\n",
    "list.csv": "n,gene,note\n1,TP53,\n2,EGFR,x\n",
    "list.tsv.gz": "symbol\tn\nTP53\t1\nEGFR\t2\n",
    "sets.gmt": "A\thttp://x\tTP53\tEGFR\nB\tna\tKRAS\n",
    "sets.csv": "A,B\nTP53,KRAS\nEGFR,\n",
    "sets.csv.gz": "A,B\nTP53,KRAS\nEGFR,\n",
}


def read_names(file: Path) -> list[str]:
    if file.name.startswith("list"):
        return read_gene_list(file)
    sets = read_gene_sets(file)
    return [*sets, *(gene for genes in sets.values() for gene in genes)]


@pytest.mark.parametrize("name", LISTS)
@fuzzed
@given(**DAMAGE)
def test_damaged_gene_lists(tmp_path, name, share, bit, cut):
    file = tmp_path / name
    write_text(file, LISTS[name])
    whole = read_names(file)
    file.write_bytes(damage(file.read_bytes(), share, bit, cut))
    try:
        names = read_names(file)
    except FaultError:
        return
    assert names
    assert all(isinstance(name, str) and name == name.strip() and name for name in names)
    assert file.suffix != ".gz" or names == whole


@pytest.mark.parametrize("name", LISTS)
@fuzzed
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.text(max_size=100).map(lambda text: text.encode(errors="replace")),
    )
)
def test_any_gene_list(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    try:
        names = read_names(tmp_path / name)
    except FaultError:
        return
    assert all(names)
