"""Genes without a name, on several rows, or without a value for some samples."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from builders.faults import faults_of, kinds_of
from builders.rna_files import gdc_folder, table, write_h5ad, write_text

from gimp_fast.data.names import DUPLICATE_GENES, MISSING_VALUES
from gimp_fast.data.rna.expression import open_expression, open_expressions
from gimp_fast.data.rna.repairs import is_no_name
from gimp_fast.errors import GimpError

GENES = ["TP53", "EGFR", "KRAS", "EGFR", "EGFR"]
VALUES = np.array([[1, 2], [3, 4], [5, 6], [7, 9], [3, 4]], np.float32)  # genes × samples


def write(folder, layout, genes=GENES, values=VALUES):
    cells = [["NA" if np.isnan(v) else f"{v:g}" for v in row] for row in values]
    if layout == "h5ad":
        return write_h5ad(folder / "t.h5ad", values.T, ["P1", "P2"], genes)
    if layout == "cbioportal":
        rows = [f"{g}\t{len(g)}\t" + "\t".join(row) for g, row in zip(genes, cells, strict=True)]
        text = "\n".join(["Hugo_Symbol\tEntrez_Gene_Id\tP1\tP2", *rows]) + "\n"
    elif layout == "genes-in-rows":
        rows = ["\t".join([g, *row]) for g, row in zip(genes, cells, strict=True)]
        text = "\n".join(["gene_id\tP1\tP2", *rows]) + "\n"
    else:
        end = "_rnaseq" if layout == "mcat" else ""
        rows = ["\t".join([f"P{n + 1}", *(row[n] for row in cells)]) for n in range(2)]
        text = "\n".join(["\t".join(["case_id", *(g + end for g in genes)]), *rows]) + "\n"
    return write_text(folder / "t.tsv", text)


LAYOUTS = ("genes-in-rows", "samples-in-rows", "mcat", "cbioportal", "h5ad")


def read(file, policy="error", **options):
    source = open_expression(file, duplicate_genes=policy)
    expression = source.read(source.samples, **options)
    return {row["gene_id"]: list(expression.values[:, n]) for n, row in enumerate(expression.genes)}


def reasons(file, policy="error", **options):
    source = open_expression(file, duplicate_genes=policy)
    rows = source.read(source.samples, **options).dropped_genes
    return [(row["gene_id"], row["reason"]) for row in rows]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_gene_on_rows_with_other_values(tmp_path, layout):
    file = write(tmp_path, layout)
    ((kind, message),) = faults_of(lambda: read(file))
    assert kind == "duplicate-gene"
    assert "gene EGFR in " in message
    assert "--duplicate-genes first, mean or drop" in message
    kept = {"TP53": [1, 2], "KRAS": [5, 6]}
    assert read(file, "drop") == kept
    assert read(file, "first") == {**kept, "EGFR": [3, 4]}
    of_pandas = pd.DataFrame(VALUES, GENES).groupby(level=0).mean()
    for gene, values in read(file, "mean").items():
        np.testing.assert_allclose(values, of_pandas.loc[gene], rtol=1e-6)


def test_every_row_that_is_not_used_is_listed(tmp_path):
    file = write(tmp_path, "genes-in-rows")
    repeats = ("EGFR", "repeats another row: row 6 is row 3")
    first = "duplicate gene, first row used: row 3, not row 5"
    assert reasons(file, "first") == [("EGFR", first), repeats]
    averaged = "duplicate gene averaged: row 5, with row 3"
    assert reasons(file, "mean") == [("EGFR", averaged), repeats]
    dropped = [("EGFR", f"duplicate gene dropped: row {n}") for n in (3, 5)]
    assert reasons(file, "drop") == [*dropped, repeats]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("policy", DUPLICATE_GENES)
def test_rows_with_the_same_values_are_one(tmp_path, layout, policy):
    file = write(tmp_path, layout, ["TP53", "EGFR", "EGFR"], VALUES[[0, 1, 1]])
    assert read(file, policy) == {"TP53": [1, 2], "EGFR": [3, 4]}


@pytest.mark.parametrize("policy", ["first", "mean", "drop"])
def test_a_date_is_never_merged_as_it_may_be_two_genes(tmp_path, policy):
    file = write(tmp_path, "genes-in-rows", ["TP53", "1-Mar", "1-Mar"], VALUES[:3])
    assert read(file, policy) == {"TP53": [1, 2]}
    assert "a date, which may stand for several genes" in faults_of(lambda: read(file))[0][1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_missing_values(tmp_path, layout):
    values = np.array([[1, 2], [3, np.nan], [np.nan, np.nan]], np.float32)
    file = write(tmp_path, layout, ["TP53", "EGFR", "DEAD"], values)
    ((kind, message),) = faults_of(lambda: read(file))
    assert kind == "expression-not-finite"
    assert "1 value of 1 of 2 genes missing, first gene EGFR of P2" in message
    assert "--missing-values drop-gene or keep" in message
    assert read(file, missing_values="drop-gene") == {"TP53": [1, 2]}
    assert dict(reasons(file, missing_values="drop-gene")) == {
        "EGFR": "missing value: in 1 of 2 samples",
        "DEAD": "no value in any sample",
    }
    source = open_expression(file)
    kept = source.read(source.samples, missing_values="keep")
    np.testing.assert_array_equal(kept.values, [[1, 3], [2, np.nan]])
    assert kept.provenance["missing_values"] == {"values": 1, "genes": 1}
    one = source.read(source.samples[:1])  # the value that is missing is not asked for
    np.testing.assert_array_equal(one.values, [[1, 3]])


def test_the_mean_leaves_out_what_is_missing(tmp_path):
    values = np.array([[1, np.nan], [3, 4], [np.nan, np.nan]], np.float32)
    file = write(tmp_path, "genes-in-rows", ["A", "A", "A"], values)
    assert read(file, "mean") == {"A": [2, 4]}


def test_what_no_treatment_of_missing_values_can_mend(tmp_path):
    values = np.array([[1, np.nan], [2, np.nan]], np.float32)
    file = write(tmp_path, "genes-in-rows", ["A", "B"], values)
    for treatment in MISSING_VALUES:
        ((kind, message),) = faults_of(lambda t=treatment: read(file, missing_values=t))
        assert (kind, "no value for any of 2 genes in sample P2" in message) == (
            "expression-not-finite",
            True,
        )
    values = np.array([[1, np.nan], [np.nan, 2]], np.float32)
    file = write(tmp_path, "genes-in-rows", ["A", "B"], values)
    ((kind, message),) = faults_of(lambda: read(file, missing_values="drop-gene"))
    assert (kind, "no gene with a value for every sample" in message) == ("no-genes", True)
    file = write_text(tmp_path / "t.tsv", "gene_id\tP1\nA\tinf\n")
    for treatment in MISSING_VALUES:
        ((kind, message),) = faults_of(lambda t=treatment: read(file, missing_values=t))
        assert (kind, "1 value of 1 of 1 genes infinite" in message) == (
            "expression-not-finite",
            True,
        )


def test_impossible_treatments(tmp_path):
    file = write(tmp_path, "genes-in-rows")
    with pytest.raises(GimpError, match="no way 'best'"):
        read(file, "best")
    with pytest.raises(GimpError, match="no way 'zero'"):
        read(file, "first", missing_values="zero")


NO_NAMES = ("", "0", "0.0", "-1", "-35", "-", "--", "---", "?", ".", "NA", "nan", "null", "None")


@pytest.mark.parametrize("name", NO_NAMES)
@pytest.mark.parametrize("layout", ["genes-in-rows", "cbioportal", "h5ad"])
def test_what_stands_in_the_place_of_a_name_is_no_gene(tmp_path, name, layout):
    file = write(tmp_path, layout, ["TP53", name, "KRAS"], VALUES[:3])
    if layout == "cbioportal":
        text = file.read_text("utf-8").replace(f"\n{name}\t{len(name)}\t", f"\n{name}\t-7\t")
        file.write_text(text, "utf-8")
    assert read(file) == {"TP53": [1, 2], "KRAS": [5, 6]}
    ((_, reason),) = reasons(file)
    assert reason.endswith(("row 3", "var 2"))


@pytest.mark.parametrize("entrez", ["0", "-1", "NA", "---", ""])
@pytest.mark.parametrize("symbol", ["", "NA", "---", "?", "0"])
def test_cbioportal_rows_without_symbol_and_entrez_id(tmp_path, symbol, entrez):
    header = "Hugo_Symbol\tEntrez_Gene_Id\tP1\n"
    file = write_text(tmp_path / "t.txt", f"{header}TP53\t7157\t1\n{symbol}\t{entrez}\t2\n")
    assert read(file) == {"TP53": [1]}
    assert reasons(file) == [("", "neither symbol nor Entrez id: row 3")]


def test_cbioportal_symbols_with_a_placeholder_for_their_entrez_id(tmp_path):
    rows = "TP53\t7157\t1\nMATR3\t9782\t2\nMATR3\t0\t3\n\t100.0\t4\nKRAS\t-1\t5\n"
    file = write_text(tmp_path / "t.txt", f"Hugo_Symbol\tEntrez_Gene_Id\tP1\n{rows}")
    expected = {"TP53": [1], "MATR3|9782": [2], "MATR3": [3], "100": [4], "KRAS": [5]}
    assert read(file) == expected


def test_columns_of_an_array_that_are_counted_keep_their_names(tmp_path):
    file = write_text(tmp_path / "t.csv", table("case_id", ["P1"], ["0", "1", "2"], [[1, 2, 3]]))
    assert read(file) == {"0": [1], "1": [2], "2": [3]}
    assert not is_no_name("1")


def test_joined_sources_check_only_the_genes_that_they_share(tmp_path):
    text = "gene_id\tP1\nTP53\t1\nEGFR\t2\nEGFR\t3\n"
    first = write_text(tmp_path / "a.tsv", text)
    without = write_text(tmp_path / "b.tsv", "gene_id\tP2\nTP53\t4\nKRAS\t5\n")
    both = open_expressions([first, without])
    np.testing.assert_array_equal(both.read(both.samples).values, [[1], [4]])
    shared = write_text(tmp_path / "c.tsv", "gene_id\tP3\nTP53\t4\nEGFR\t5\n")
    three = open_expressions([first, shared])
    ((kind, message),) = faults_of(lambda: three.read(three.samples))
    assert (kind, f"rows 3 and 4 with other values in {first}" in message) == (
        "duplicate-gene",
        True,
    )
    mean = open_expressions([first, shared], duplicate_genes="mean")
    np.testing.assert_array_equal(mean.read(mean.samples).values, [[1, 2.5], [4, 5]])


def test_two_versions_of_a_gene_in_joined_sources(tmp_path):
    text = "gene_id\tP1\nENSG00000000001.1\t1\nENSG00000000001.2\t3\n"
    first = write_text(tmp_path / "a.tsv", text)
    second = write_text(tmp_path / "b.tsv", "gene_id\tP2\nENSG00000000001.7\t9\n")
    two = open_expressions([first, second])
    assert kinds_of(lambda: two.read(two.samples)) == ["duplicate-gene"]
    mean = open_expressions([first, second], duplicate_genes="mean")
    np.testing.assert_array_equal(mean.read(mean.samples).values, [[2], [9]])


def test_gdc_files_with_a_gene_twice_and_a_gap(tmp_path):
    genes = ["ENSG00000000003.15", "ENSG00000000005.6", "ENSG00000000005.6", "ENSG00000000419.13"]
    samples = {"TCGA-00-0001-01A": [1, 2, 4, 5], "TCGA-00-0002-01A": [1, 2, 4, float("nan")]}
    folder = gdc_folder(tmp_path / "gdc", genes, samples)
    assert kinds_of(lambda: read(folder)) == ["duplicate-gene", "expression-not-finite"]
    found = read(folder, "mean", transform="as given", missing_values="drop-gene")
    assert found == {genes[0]: [1, 1], genes[1]: [3, 3]}
