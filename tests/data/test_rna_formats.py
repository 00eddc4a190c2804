"""Every layout of expression tables reads back what was written; what is odd is a named fault."""

from __future__ import annotations

import gzip
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gimp_fast.data.rna import (
    ExpressionSource,
    choose_samples,
    open_expression,
    open_expressions,
)
from gimp_fast.errors import FaultError, GimpError
from gimp_fast.files import isolated

ENSEMBL = ("ENSG00000000003.15", "ENSG00000000005.6", "ENSG00000000419.13")
CASES = ("TCGA-00-0001", "TCGA-00-0002")
BARCODES = tuple(f"{case}-01A" for case in CASES)
VALUES = np.array([[1.5, -2.0, 0.25], [3.0, 4.5, -0.125]], np.float32)  # samples × genes


def write_text(file: Path, text: str) -> Path:
    data = text.encode()
    file.write_bytes(gzip.compress(data) if file.suffix == ".gz" else data)
    return file


def table(corner: str, rows, columns, values, delimiter: str = ",") -> str:
    lines = [delimiter.join([corner, *columns])]
    for name, cells in zip(rows, values, strict=True):
        lines.append(delimiter.join([name, *(f"{cell:g}" for cell in cells)]))
    return "\n".join(lines) + "\n"


def read(source: ExpressionSource, transform: str | None = None):
    chosen, _ = choose_samples(source.samples)
    return list(chosen), source.read(chosen.values(), transform)


def faults_of(action) -> list[tuple[str, str]]:
    with pytest.raises(FaultError) as error:
        action()
    return [(fault.kind, str(fault)) for fault in error.value.faults]


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
    assert "1 values of 1 of 2 genes missing" in message
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


CBIOPORTAL = """Hugo_Symbol\tEntrez_Gene_Id\tTCGA-00-0001-01\tTCGA-00-0002-01\tTCGA-00-0001-11
TP53\t7157\t1\t2\t9
\t100\t3\t4\t9
MATR3\t9782\t5\t6\t9
MATR3\t55\t7\t8\t9
\t\t1\t1\t9
EGFR\t1956\t-1\t-2\t9
EGFR\t1956\t-1\t-2\t9
DEAD\t1\tNA\tNA\t9
"""


def test_cbioportal(tmp_path):
    file = write_text(tmp_path / "data_mrna_seq_v2_rsem_zscores_ref_all_samples.txt", CBIOPORTAL)
    cases, expression = read(open_expression(file))
    assert cases == list(CASES)
    assert ids(expression) == ["TP53", "100", "MATR3|9782", "MATR3|55", "EGFR"]
    names = [row["gene_name"] for row in expression.genes]
    assert names == ["TP53", "", "MATR3", "MATR3", "EGFR"]
    np.testing.assert_array_equal(expression.values, [[1, 3, 5, 7, -1], [2, 4, 6, 8, -2]])
    assert reasons(expression) == {
        "": "neither symbol nor Entrez id: row 6",
        "EGFR": "repeats another row: row 8 is row 7",
        "DEAD": "no value in any sample",
    }
    assert expression.provenance["kind"] == "cbioportal"


@pytest.mark.parametrize(
    ("old", "new", "kind", "text"),
    [
        ("EGFR\t1956\t-1\t-2\t9\nD", "EGFR\t1956\t-1\t-3\t9\nD", "duplicate-gene", "rows 7 and 8"),
        ("TP53\t7157\t1\t2", "TP53\t7157\t1\tNA", "expression-not-finite", "1 of 5 genes"),
        ("MATR3\t55", "MATR3\t9782", "duplicate-gene", "rows 4 and 5"),
        ("\t100\t", "\tTP53\t", "duplicate-gene", "TP53"),
        ("0002-01\t", "0001-01\t", "duplicate-sample", "TCGA-00-0001-01"),
    ],
)
def test_bad_cbioportal(tmp_path, old, new, kind, text):
    assert old in CBIOPORTAL
    file = write_text(tmp_path / "t.txt", CBIOPORTAL.replace(old, new))
    ((found, message),) = faults_of(lambda: read(open_expression(file)))
    assert found == kind
    assert text in message


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
        ("case_id,A,\nP1,1,2\n", "gene-without-id", "place 2"),
        ("case_id,A\n,1\n", "sample-without-id", "row 2"),
        ("case_id,age\nP1,1\n", "no-genes", "no genes"),
        ("case_id,sample_id,A\nP1,S,1\nP2,S,1\n", "duplicate-sample", "row 3"),
        ("gene_id,a,\nG,1,2\n", "sample-without-id", "column 3"),
        ("gene_id,a\n,2\n", "gene-without-id", "place 1"),
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


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
@pytest.mark.parametrize("end", [".csv", ".csv.gz"])
def test_other_encodings_are_faults(tmp_path, encoding, end):
    text = "gene_id,pé1,p2\nTP53é,1,2\n".encode(encoding)
    file = tmp_path / f"t{end}"
    file.write_bytes(gzip.compress(text) if end.endswith("gz") else text)
    ((kind, message),) = faults_of(lambda: read(open_expression(file)))
    assert kind == "unreadable-file"
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


def anndata_file(file: Path, obs=None, var=None, x=VALUES, obs_names=BARCODES, **layers) -> Path:
    import anndata

    with warnings.catch_warnings():
        # anndata 0.12 cannot write the strings of pandas 3
        warnings.simplefilter("ignore")
        with pd.option_context("future.infer_string", False):
            data = anndata.AnnData(
                x,
                pd.DataFrame(obs or {}, index=list(obs_names)),
                pd.DataFrame(var or {}, index=list(ENSEMBL)),
                layers=layers,
            )
            data.write_h5ad(file)
    return file


def sparse(kind: str, values=VALUES):
    import scipy.sparse

    return getattr(scipy.sparse, f"{kind}_matrix")(values)


@pytest.mark.parametrize("storage", ["dense", "float64", "int32", "csr", "csc"])
def test_h5ad(tmp_path, storage):
    dense = np.array([[1, 0, 7], [0, 0, 3]], np.float32)
    x = {"dense": dense, "float64": dense.astype("f8"), "int32": dense.astype("i4")}.get(storage)
    x = sparse(storage, dense) if x is None else x
    source = open_expression(anndata_file(tmp_path / "t.h5ad", x=x))
    cases, expression = read(source)
    assert (cases, ids(expression)) == (list(CASES), list(ENSEMBL))
    np.testing.assert_array_equal(expression.values, dense)
    assert expression.values.dtype == np.float32
    one, same = source.samples[1], source.samples[1]
    np.testing.assert_array_equal(source.read([one, same]).values, dense[[1, 1]])


@pytest.mark.parametrize("kind", ["dense", "csr", "csc"])
def test_h5ad_layer(tmp_path, kind):
    layer = VALUES * 2 if kind == "dense" else sparse(kind, VALUES * 2)
    source = open_expression(anndata_file(tmp_path / "t.h5ad", scaled=layer), layer="scaled")
    _, expression = read(source)
    np.testing.assert_array_equal(expression.values, VALUES * 2)
    assert expression.provenance["layer"] == "scaled"


def test_h5ad_columns(tmp_path):
    obs = {"case_id": ["P2", "P1"], "n": [1, 2]}
    var = {
        "gene_ids": ["G1", "G2", "G3"],
        "gene_symbols": ["A", "B", "C"],
        "feature_types": ["Gene Expression"] * 3,
    }
    source = open_expression(anndata_file(tmp_path / "t.h5ad", obs, var, obs_names=("s1", "s2")))
    cases, expression = read(source)
    assert cases == ["P1", "P2"]
    assert [sample.barcode for sample in source.samples] == ["s1", "s2"]
    assert expression.genes[0] == {"gene_id": "G1", "gene_name": "A", "gene_type": ""}
    np.testing.assert_array_equal(expression.values, VALUES[::-1])


def test_h5ad_biotypes(tmp_path):
    var = {"gene_type": ["protein_coding", "lncRNA", "protein_coding"]}
    _, expression = read(open_expression(anndata_file(tmp_path / "t.h5ad", None, var)))
    assert [row["gene_type"] for row in expression.genes] == var["gene_type"]


def test_bad_h5ad(tmp_path):
    import h5py

    def broken(change):
        file = anndata_file(tmp_path / "t.h5ad", x=sparse("csr", np.abs(VALUES)))
        with h5py.File(file, "r+") as h5:
            change(h5)
        return [kind for kind, _ in faults_of(lambda: read(open_expression(file)))]

    def replace(name, values):
        def change(h5):
            attributes = dict(h5[name].attrs)
            del h5[name]
            h5[name] = values
            h5[name].attrs.update(attributes)

        return change

    assert broken(lambda h5: h5.pop("X")) == ["no-layer"]
    assert broken(lambda h5: h5.pop("obs")) == ["unreadable-file"]
    assert broken(replace("X/data", np.ones(6, ">f4"))) == ["expression-dtype"]
    assert broken(replace("X/data", np.ones(6, bool))) == ["expression-dtype"]
    assert broken(replace("X/indices", np.full(6, 7))) == ["unreadable-file"]
    assert broken(replace("X/indices", np.zeros(6, int))) == ["unreadable-file"]
    assert broken(replace("X/indptr", np.array([0, 6, 3]))) == ["unreadable-file"]
    assert broken(replace("X/data", np.ones(5, "f4"))) == ["unreadable-file"]
    assert broken(replace("X/data", np.full(6, np.nan, "f4"))) == ["expression-not-finite"]
    assert broken(lambda h5: h5["X"].attrs.modify("shape", [2, 4])) == ["table-shape"]
    assert broken(replace("obs/_index", ["a", "a"])) == ["duplicate-sample"]
    assert broken(replace("var/_index", ["a", "a", "b"])) == ["duplicate-gene"]
    file = anndata_file(tmp_path / "t.h5ad")
    missing = faults_of(lambda: open_expression(file, layer="counts"))
    assert [kind for kind, _ in missing] == ["no-layer"]
    turned = faults_of(lambda: open_expression(file, orientation="genes-in-rows"))
    assert [kind for kind, _ in turned] == ["orientation"]


def test_a_file_that_hangs_hdf5_is_a_fault(tmp_path, monkeypatch):
    file = anndata_file(tmp_path / "t.h5ad")
    read(open_expression(file))
    content = bytearray(file.read_bytes())
    # The length of the first text in the collection of texts: the next one seems to lie in the
    # empty end of the collection and to be 0 bytes long, and so HDF5 never gets past it.
    length = content.index(b"GCOL") + 24
    content[length : length + 8] = (3600).to_bytes(8, "little")
    file.write_bytes(content)
    monkeypatch.setattr(isolated, "SECONDS", 3.0)
    ((kind, _),) = faults_of(lambda: open_expression(file))
    assert kind == "unreadable-file"


READER = """
import os, time

def crash(path):
    os.abort()

def hang(path):
    time.sleep(600)

def answer(path):
    print("printing is no answer")
    return 42
"""


def test_a_reader_may_crash_or_hang(tmp_path, monkeypatch):
    file = write_text(tmp_path / "bad_reader.py", READER)
    monkeypatch.syspath_prepend(tmp_path)
    isolated.close_workers()
    import bad_reader

    assert isolated.run_isolated(bad_reader.answer, file) == 42
    ((kind, message),) = faults_of(lambda: isolated.run_isolated(bad_reader.crash, file))
    assert kind == "unreadable-file"
    assert "a crash of the library" in message
    assert isolated.run_isolated(bad_reader.answer, file) == 42
    monkeypatch.setattr(isolated, "SECONDS", 0.5)
    ((kind, message),) = faults_of(lambda: isolated.run_isolated(bad_reader.hang, file))
    assert "no end of reading it" in message


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


WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
from gimp_fast.data.rna import open_expression
from gimp_fast.errors import FaultError
try:
    open_expression(sys.argv[2])
except FaultError as error:
    print(error)
"""


@pytest.mark.parametrize(("library", "file"), [("pyarrow", "t.parquet"), ("anndata", "t.h5ad")])
def test_a_missing_library_is_named(tmp_path, library, file):
    if library == "pyarrow":
        pd.DataFrame({"case_id": ["P"], "A": [1]}).to_parquet(tmp_path / file)
    else:
        anndata_file(tmp_path / file)
    argv = [sys.executable, "-c", WITHOUT, library, str(tmp_path / file)]
    printed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert f"{library}, from `pip install gimp-fast[formats]`" in printed
    assert "[missing-library]" in printed


def test_importing_loads_no_library_of_formats():
    code = (
        "import sys, gimp_fast.data.rna.expression, gimp_fast.data.rna.genes;"
        "print([m for m in ('pyarrow', 'anndata', 'scipy', 'pandas') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def matrices(folder: Path) -> list[Path]:
    first = "gene_id\tgene_name\tP1\tP2\nENSG00000000001.2\tA\t1\t2\nENSG00000000002.1\t\t3\t4\n"
    first += "ENSG00000000003.1\tC\t5\t6\n"
    second = "gene_id\tgene_name\tP3\nENSG00000000002.9\tB\t7\nENSG00000000004.1\tD\t8\n"
    second += "ENSG00000000001.2_PAR_Y\tA\t9\nENSG00000000001.3\tA\t10\n"
    return [write_text(folder / "a.tsv", first), write_text(folder / "b.tsv", second)]


def test_several_sources(tmp_path):
    paths = matrices(tmp_path)
    source = open_expressions(paths)
    cases, expression = read(source)
    assert cases == ["P1", "P2", "P3"]
    assert ids(expression) == ["ENSG00000000001.2", "ENSG00000000002.1"]
    assert [row["gene_name"] for row in expression.genes] == ["A", "B"]
    np.testing.assert_array_equal(expression.values, [[1, 3], [2, 4], [10, 7]])
    dropped = {row["gene_id"]: (row["reason"], row["source"]) for row in expression.dropped_genes}
    assert set(dropped) == {"ENSG00000000003.1", "ENSG00000000004.1", "ENSG00000000001.2_PAR_Y"}
    reason, where = dropped["ENSG00000000003.1"]
    assert str(paths[1]) in reason
    assert where == str(paths[0])
    assert expression.provenance["paths"] == [str(path) for path in paths]
    assert expression.provenance["kind"] == "joined"
    # the order asked for counts, not that of the sources
    mixed = [source.samples[2], source.samples[0]]
    np.testing.assert_array_equal(source.read(mixed).values, [[10, 7], [1, 3]])


def test_one_of_several_sources_alone_keeps_its_genes(tmp_path):
    source = open_expressions(matrices(tmp_path))
    assert source.read(source.samples[2:]).values.shape == (1, 4)


def test_sources_that_do_not_fit(tmp_path):
    first, second = matrices(tmp_path)
    other = write_text(tmp_path / "c.tsv", "gene_id\tP9\nTP53\t1\n")
    zscores = write_text(tmp_path / "mcat.csv", MCAT)
    joined = open_expressions([first, other])
    assert [kind for kind, _ in faults_of(lambda: read(joined))] == ["no-genes"]
    mixed = faults_of(lambda: open_expressions([first, zscores]))
    assert [kind for kind, _ in mixed] == ["mixed-units"]
    again = faults_of(lambda: open_expressions([first, second, first]))
    assert [kind for kind, _ in again] == ["duplicate-source"]
    bad = write_text(tmp_path / "bad.tsv", "")
    both = faults_of(lambda: open_expressions([bad, first, tmp_path / "none.tsv"]))
    assert [kind for kind, _ in both] == ["no-samples", "missing-file"]
    versions = "gene_id\tP9\nENSG00000000001.1\t1\nENSG00000000001.2\t1\n"
    two = open_expressions([first, write_text(tmp_path / "v.tsv", versions)])
    assert [kind for kind, _ in faults_of(lambda: read(two))] == ["duplicate-gene"]


def test_real_matrix(real_data):
    source = open_expression(real_data / "tcga_nsclc" / "rna.log2.tsv.gz")
    cases, expression = read(source)
    assert expression.values.shape == (len(cases), 50)
    assert source.kind == "matrix"
    frame = pd.read_csv(real_data / "tcga_nsclc" / "rna.log2.tsv.gz", sep="\t", index_col=0)
    chosen, _ = choose_samples(source.samples)
    expected = frame[[sample.barcode for sample in chosen.values()]].T
    np.testing.assert_array_equal(expression.values, expected.to_numpy(np.float32))
