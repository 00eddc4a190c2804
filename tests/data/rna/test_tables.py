"""Tables of expression read back what was written; what is odd is a named fault."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest
from builders.faults import faults_of, kinds_of
from builders.rna_files import (
    STAR_HEADER,
    table,
    write_text,
)

from gimp_fast.data.rna.expression import open_expression, open_expressions
from gimp_fast.data.rna.samples import choose_samples
from gimp_fast.data.rna.source import ExpressionSource
from gimp_fast.errors import GimpError

ENSEMBL = ("ENSG00000000003.15", "ENSG00000000005.6", "ENSG00000000419.13")
CASES = ("TCGA-00-0001", "TCGA-00-0002")
BARCODES = tuple(f"{case}-01A" for case in CASES)
VALUES = np.array([[1.5, -2.0, 0.25], [3.0, 4.5, -0.125]], np.float32)  # samples × genes


def read(source: ExpressionSource, transform: str | None = None):
    chosen, _ = choose_samples(source.samples)
    return list(chosen), source.read(chosen.values(), transform)


def ids(expression) -> list[str]:
    return [row["gene_id"] for row in expression.genes]


def reasons(expression) -> dict[str, str]:
    return {row["gene_id"]: row["reason"] for row in expression.dropped_genes}


DELIMITED = {"csv": ",", "csv.gz": ",", "tsv": "\t", "tsv.gz": "\t", "txt": "\t"}


@pytest.mark.parametrize("end", DELIMITED)
@pytest.mark.parametrize("orientation", ["genes-in-rows", "samples-in-rows"])
@pytest.mark.parametrize("asked", ["auto", "named"])
def test_tables_in_both_orientations(tmp_path, end, orientation, asked):
    if orientation == "genes-in-rows":
        text = table("x", ENSEMBL, BARCODES, VALUES.T, DELIMITED[end])
    else:
        text = table("x", BARCODES, ENSEMBL, VALUES, DELIMITED[end])
    file = write_text(tmp_path / f"t.{end}", text)
    source = open_expression(file, orientation=orientation if asked == "named" else "auto")
    cases, expression = read(source)
    assert cases == list(CASES)
    np.testing.assert_array_equal(expression.values, VALUES)
    assert expression.values.dtype == np.float32
    assert expression.values.flags.c_contiguous
    assert ids(expression) == list(ENSEMBL)
    assert expression.transform == "as given"
    assert expression.provenance["kind"] == ("matrix" if orientation[0] == "g" else "table")
    assert expression.provenance["paths"] == [str(file)]


@pytest.mark.parametrize("orientation", ["genes-in-rows", "samples-in-rows"])
@pytest.mark.parametrize("index", ["index", "named-index", "column"])
def test_parquet(tmp_path, orientation, index):
    frame = pd.DataFrame(VALUES.astype(np.float64), BARCODES, ENSEMBL)
    frame = frame if orientation == "samples-in-rows" else frame.T
    if index == "named-index":
        frame = frame.rename_axis("id")
    if index == "column":
        frame = frame.rename_axis("id").reset_index()
    frame.to_parquet(tmp_path / "t.parquet", row_group_size=2)
    cases, expression = read(open_expression(tmp_path / "t.parquet"))
    assert cases == list(CASES)
    np.testing.assert_array_equal(expression.values, VALUES)
    assert ids(expression) == list(ENSEMBL)


ORIENTATIONS = {
    # corner, row names, column names, known cases, expected
    "known-in-columns": ("case_id", ["p", "q"], ["k1", "x"], {"k1"}, "matrix"),
    "known-in-rows": ("gene_id", ["k1", "q"], ["a", "x"], {"k1"}, "table"),
    "known-by-barcode": ("x", ["TCGA-00-0001-01A", "q"], ["a", "b"], {"TCGA-00-0001"}, "table"),
    "more-known-in-columns": ("x", ["k1", "q"], ["k2", "k3"], {"k1", "k2", "k3"}, "matrix"),
    "barcodes-in-rows": ("x", list(BARCODES), ["TP53", "EGFR"], set(), "table"),
    "barcodes-in-columns": ("case_id", ["TP53", "EGFR"], list(BARCODES), set(), "matrix"),
    "ensembl-in-rows": ("sample_id", list(ENSEMBL[:2]), ["a", "b"], set(), "matrix"),
    "ensembl-in-columns": ("gene", ["a", "b"], list(ENSEMBL[:2]), set(), "table"),
    "corner-gene_id": ("gene_id", ["a", "b"], ["c", "d"], set(), "matrix"),
    "corner-Hugo_Symbol": ("Hugo_Symbol", ["a", "b"], ["c", "d"], set(), "cbioportal"),
    "corner-xena-sample": ("sample", ["a", "b"], ["c", "d"], set(), "matrix"),
    "corner-case_id": ("case_id", ["a", "b"], ["c", "d"], set(), "table"),
    "corner-PATIENT": ("PATIENT", ["a", "b"], ["c", "d"], set(), "table"),
    "corner-slide_id": ("slide_id", ["a", "b"], ["c", "d"], set(), "table"),
    "nothing-tells": ("x", ["a", "b"], ["c", "d"], set(), "matrix"),
}


@pytest.mark.parametrize("case", ORIENTATIONS)
def test_orientation_is_found(tmp_path, case):
    corner, rows, columns, known, kind = ORIENTATIONS[case]
    file = write_text(tmp_path / "t.csv", table(corner, rows, columns, np.eye(2)))
    assert open_expression(file, known_cases=known).kind == kind


def test_quoted_tables_of_r(tmp_path):
    text = '"","TCGA-00-0001-01A","TCGA-00-0002-01A"\n"A, with comma",1,2\n"B ""x""",3,NA\n'
    source = open_expression(write_text(tmp_path / "t.csv", text))
    (kind, message), *more = faults_of(lambda: read(source))
    assert (kind, more) == ("expression-not-finite", [])
    assert "1 value of 1 of 2 genes missing" in message
    assert 'B "x"' in message
    chosen = [sample for sample in source.samples if sample.case_id == "TCGA-00-0001"]
    assert ids(source.read(chosen)) == ["A, with comma", 'B "x"']


def test_windows_line_ends_and_byte_order_mark(tmp_path):
    text = "\ufeffgene_id,a,b\r\nTP53,1,2\r\n\r\nEGFR,3,4\r\n"
    cases, expression = read(open_expression(write_text(tmp_path / "t.csv", text)))
    assert (cases, ids(expression)) == (["a", "b"], ["TP53", "EGFR"])
    np.testing.assert_array_equal(expression.values, [[1, 3], [2, 4]])


def test_columns_that_describe_genes(tmp_path):
    text = "gene_id\tgene_name\tgene_type\tp1\tp2\nG1\tTP53\tprotein_coding\t1\t2\n__x\t\t\t9\t9\n"
    cases, expression = read(open_expression(write_text(tmp_path / "t.tsv", text)))
    assert cases == ["p1", "p2"]
    assert expression.genes == [
        {"gene_id": "G1", "gene_name": "TP53", "gene_type": "protein_coding"}
    ]
    assert list(reasons(expression)) == ["__x"]


def test_numbers_are_exact(tmp_path):
    numbers = (
        np.random.default_rng(0).standard_normal((40, 3)) * 10.0 ** np.arange(-20, 20)[:, None]
    )
    lines = [f"g{n}\t" + "\t".join(map(repr, row)) for n, row in enumerate(numbers.tolist())]
    file = write_text(tmp_path / "t.tsv", "\n".join(["id\ta\tb\tc", *lines]) + "\n")
    np.testing.assert_array_equal(
        read(open_expression(file))[1].values, numbers.astype(np.float32).T
    )


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        ("two", "unreadable-file"),
        ("1_000", "unreadable-file"),
        ("True", "unreadable-file"),
        ("1,5", "unreadable-file"),
        ("0x10", "unreadable-file"),
        ("1.5.2", "unreadable-file"),
        ("٣", "unreadable-file"),
        ("nan", "expression-not-finite"),
        ("", "expression-not-finite"),
        ("NA", "expression-not-finite"),
        ("inf", "expression-not-finite"),
        ("1e39", "expression-not-finite"),
    ],
)
@pytest.mark.parametrize("orientation", ["genes-in-rows", "samples-in-rows"])
def test_what_is_no_number_is_named(tmp_path, cell, kind, orientation):
    rows, columns = ("g1", "g2"), ("s1", "s2")
    if orientation == "samples-in-rows":
        rows, columns = columns, rows
    text = table("x", rows, columns, [[1, 2], [3, 4]], "\t").replace("\t4\n", f"\t{cell}\n")
    file = write_text(tmp_path / "t.tsv", text)
    ((found, message),) = faults_of(lambda: read(open_expression(file, orientation=orientation)))
    assert found == kind
    named = ("row 3", columns[1]) if kind == "unreadable-file" else ("g2", "s2")
    assert all(name in message for name in named)


def test_one_fault_a_file_counts_genes_and_samples(tmp_path):
    text = "gene_id\ta\tb\tc\ng1\tNA\t1\tNA\ng2\t1\t2\tNA\ng3\t1\t2\t3\n"
    ((kind, message),) = faults_of(
        lambda: read(open_expression(write_text(tmp_path / "t.tsv", text)))
    )
    assert kind == "expression-not-finite"
    assert "3 values of 2 of 3 genes, in 2 samples, missing" in message


_IGNORED = ("slide_id", "site", "is_female", "age", "survival_months", "censorship", "TP53_mut")


MCAT = f""",case_id,{",".join(_IGNORED)},TP53_rnaseq,A2M_rnaseq
0,TCGA-00-0002,TCGA-00-0002-01Z-00-DX1.x.svs,00,1,60,1.5,0,1,-0.5,2
1,TCGA-00-0001,TCGA-00-0001-01Z-00-DX1.y.svs,00,0,61,2.5,1,0,1.25,-3
2,TCGA-00-0002,TCGA-00-0002-01Z-00-DX2.z.svs,00,1,60,1.5,0,1,-0.5,2
"""


def test_mcat(tmp_path):
    cases, expression = read(open_expression(write_text(tmp_path / "blca.csv", MCAT)))
    assert cases == list(CASES)
    assert ids(expression) == ["TP53", "A2M"]
    np.testing.assert_array_equal(expression.values, [[1.25, -3], [-0.5, 2]])
    ignored = expression.provenance["ignored_columns"]
    assert ignored == ["", *_IGNORED]


def test_mcat_rows_that_differ(tmp_path):
    text = MCAT.replace("1,-0.5,2\n", "1,-0.5,2.5\n", 1)
    ((kind, message),) = faults_of(
        lambda: read(open_expression(write_text(tmp_path / "t.csv", text)))
    )
    assert kind == "duplicate-sample"
    assert "rows 2 and 4" in message
    assert "A2M_rnaseq" in message


def test_samples_of_one_patient_in_rows(tmp_path):
    text = "case_id,sample_id,age,A,B\nP1,S2,50,1,2\nP1,S1,50,3,4\nP2,S3,60,5,6\n"
    source = open_expression(write_text(tmp_path / "t.csv", text))
    chosen, dropped = choose_samples(source.samples)
    assert {case: sample.barcode for case, sample in chosen.items()} == {"P1": "S1", "P2": "S3"}
    assert [sample.barcode for sample, _ in dropped] == ["S2"]
    expression = source.read(chosen.values())
    np.testing.assert_array_equal(expression.values, [[3, 4], [5, 6]])
    assert expression.provenance["ignored_columns"] == ["age"]


@pytest.mark.parametrize(
    ("text", "kind", "named"),
    [
        ("case_id,A,smoker\nP1,1,no\n", "unreadable-file", "column 'smoker'"),
        ("case_id,A\nP1,1\nP1,2\n", "duplicate-sample", "rows 2 and 3"),
        ("case_id,A,A\nP1,1,2\n", "duplicate-gene", "A"),
        ("case_id,A,\nP1,1,2\n", "gene-without-id", "column 3"),
        ("case_id,A\n,1\n", "sample-without-id", "row 2"),
        ("case_id,age\nP1,1\n", "no-genes", "no genes"),
        ("case_id,sample_id,A\nP1,S,1\nP2,S,1\n", "duplicate-sample", "row 3"),
        ("gene_id,a,\nG,1,2\n", "sample-without-id", "column 3"),
        ("gene_id,a\n,2\n", "no-genes", "with a name"),
        ("case_id,A\nP1,1", "truncated-file", "line end"),
        ('case_id,A\n"P1,1\n', "unreadable-file", "row 2"),
        ("case_id,A\n", "no-samples", "without rows"),
    ],
)
def test_bad_tables(tmp_path, text, kind, named):
    file = write_text(tmp_path / "t.csv", text)
    ((found, message),) = faults_of(lambda: read(open_expression(file)))
    assert found == kind
    assert named in message


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "latin-1"])
@pytest.mark.parametrize("end", [".csv", ".csv.gz"])
def test_other_encodings_are_faults(tmp_path, encoding, end):
    text = "gene_id,pé1,p2\nTP53é,1,2\n".encode(encoding)
    file = tmp_path / f"t{end}"
    file.write_bytes(gzip.compress(text) if end.endswith("gz") else text)
    ((kind, message),) = faults_of(lambda: read(open_expression(file)))
    assert kind == "encoding"
    assert "UTF-8" in message


@pytest.mark.parametrize(
    ("types", "kept"),
    [(("01",), ["01A"]), (("06",), ["06A"]), (("01", "11"), ["01A", "11A"]), (("03",), [])],
)
def test_sample_types(tmp_path, types, kept):
    columns = [f"TCGA-00-000{n}-{code}A" for n, code in enumerate(("01", "06", "11"))]
    file = write_text(tmp_path / "t.tsv", table("x", ENSEMBL, columns, np.ones((3, 3)), "\t"))
    chosen, dropped = choose_samples(open_expression(file, sample_types=types).samples)
    assert [sample.barcode[13:] for sample in chosen.values()] == kept
    reason = "not a primary tumour" if types == ("01",) else "not of the sample types asked for"
    assert all(why.startswith(reason) and sample.sample_type in why for sample, why in dropped)
    assert len(dropped) == 3 - len(kept)


@pytest.mark.parametrize(
    ("transform", "expected"),
    [("log2(x+1)", np.log2), ("log1p", np.log), ("as given", lambda x: x - 1)],
)
def test_transforms(tmp_path, transform, expected):
    values = np.array([[0, 1.5], [300, 7]])
    file = write_text(tmp_path / "t.tsv", table("gene", "AB", "xy", values.T, "\t"))
    _, expression = read(open_expression(file), transform)
    np.testing.assert_allclose(expression.values, expected(values + 1), rtol=1e-6)
    assert expression.transform == expression.provenance["transform"] == transform


@pytest.mark.parametrize("transform", ["log2(x+1)", "log1p"])
def test_negative_values_have_no_logarithm(tmp_path, transform):
    file = write_text(tmp_path / "t.tsv", "gene\ta\tb\nA\t1\t-0.5\n")
    ((kind, message),) = faults_of(lambda: read(open_expression(file), transform))
    assert kind == "negative-expression"
    assert "(b)" in message


def test_impossible_requests(tmp_path):
    file = write_text(tmp_path / "t.tsv", "gene\ta\nA\t1\n")
    with pytest.raises(GimpError, match="no transform 'log10'"):
        read(open_expression(file), "log10")
    with pytest.raises(GimpError, match="no orientation"):
        open_expression(file, orientation="sideways")
    with pytest.raises(GimpError, match="no RNA column"):
        open_expression(file, column="counts")
    with pytest.raises(GimpError, match="no RNA given"):
        open_expressions([])
    assert faults_of(lambda: open_expression(file, layer="x"))[0][0] == "no-layer"
    assert faults_of(lambda: open_expression(tmp_path / "none.csv"))[0][0] == "missing-file"


@pytest.mark.parametrize(
    "column", [[True, False], ["a", "b"], [b"x", b"y"]], ids=["bool", "text", "bytes"]
)
def test_parquet_of_other_types(tmp_path, column):
    frame = pd.DataFrame({"case_id": ["P1", "P2"], "TP53": [1, 2], "A": column})
    frame.to_parquet(tmp_path / "t.parquet")
    ((kind, message),) = faults_of(lambda: read(open_expression(tmp_path / "t.parquet")))
    assert kind == "unreadable-file"
    assert "column 'A' of type" in message


def test_parquet_nulls_and_integers(tmp_path):
    frame = pd.DataFrame({"case_id": ["P1", "P2"], "A": pd.array([1, None], "Int64"), "B": [3, 4]})
    frame.to_parquet(tmp_path / "t.parquet")
    source = open_expression(tmp_path / "t.parquet")
    np.testing.assert_array_equal(source.read(source.samples[:1]).values, [[1, 3]])
    assert [kind for kind, _ in faults_of(lambda: read(source))] == ["expression-not-finite"]


def test_real_matrix(real_data):
    source = open_expression(real_data / "tcga_nsclc" / "rna.log2.tsv.gz")
    cases, expression = read(source)
    assert expression.values.shape == (len(cases), 50)
    assert source.kind == "matrix"
    frame = pd.read_csv(real_data / "tcga_nsclc" / "rna.log2.tsv.gz", sep="\t", index_col=0)
    chosen, _ = choose_samples(source.samples)
    expected = frame[[sample.barcode for sample in chosen.values()]].T
    np.testing.assert_array_equal(expression.values, expected.to_numpy(np.float32))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("id\ta\ta\nG\t1\t2\n", "duplicate-sample"),
        ("id\ta\nG\t1\nG\t2\n", "duplicate-gene"),
        ("id\ta\n", "no-genes"),
        ("id\ta\tb\nG\t1\n", "row-length"),
        ("id\ta\nG\t1\t2\n", "row-length"),
        ("id\ta\nG\t1\nH\t1\t2\n", "row-length"),
        ("id\ta\nG\tx\n", "unreadable-file"),
        ("id\ta\nG\t\n", "expression-not-finite"),
        ("# gene-model: GENCODE v36\n" + STAR_HEADER + "\n", "single-sample"),
        ("id\nG\n", "no-samples"),
        ("", "no-samples"),
    ],
)
def test_bad_matrices(tmp_path, text, kind):
    write_text(tmp_path / "m.tsv", text)
    assert kinds_of(lambda: read(open_expression(tmp_path / "m.tsv"))) == [kind]


def test_truncated_gzip_matrix(tmp_path):
    lines = "".join(f"G{n}\t{n * 1.37}\n" for n in range(2000))
    write_text(tmp_path / "m.tsv.gz", "id\ta\n" + lines)
    content = (tmp_path / "m.tsv.gz").read_bytes()
    (tmp_path / "m.tsv.gz").write_bytes(content[: len(content) // 2])
    assert kinds_of(lambda: read(open_expression(tmp_path / "m.tsv.gz"))) == ["truncated-file"]
