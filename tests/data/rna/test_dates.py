"""Gene symbols that a spreadsheet turned into dates."""

from __future__ import annotations

import pytest
from builders.rna_files import table, write_h5ad, write_text

from gimp_fast.data.rna.dates import describe_dates, find_dates, other_name
from gimp_fast.data.rna.expression import open_expression, open_expressions

MARCH1 = ("MARCHF1", "MTARC1")
DATES = {
    "2-Sep": ("SEPTIN2",),
    "02-Sep": ("SEPTIN2",),
    "2-Sep-2019": ("SEPTIN2",),
    "2. Sep": ("SEPTIN2",),
    "10-Mar": ("MARCHF10",),
    "1-Mar": MARCH1,
    "1-Dec": ("DELEC1",),
    "15-Sep": ("SELENOF",),
    "4-Oct": ("POU5F1",),
    "Sep-02": ("SEPTIN2",),
    "Sep-2": ("SEPTIN2",),
    "Mar 1, 2020": MARCH1,
    "01.Mrz": MARCH1,
    "1. Mär": MARCH1,
    "1-mars": MARCH1,
    "2-sept.": ("SEPTIN2",),
    "1-déc.": ("DELEC1",),
    "1-Dez": ("DELEC1",),
    "1-dic": ("DELEC1",),
    "2-set": ("SEPTIN2",),
    "2-wrz": ("SEPTIN2",),
    "3月1日": MARCH1,
    "2021年9月2日": ("SEPTIN2",),
    "2001-03-01 00:00:00": MARCH1,
    "2019-09-02": ("SEPTIN2",),
    "2019-09-02T00:00:00": ("SEPTIN2",),
    "2002-09-01": ("SEPTIN1", "SEPTIN2"),
    "9/2/2019": ("SEPTIN2",),
    "02/09/2019": ("SEPTIN2",),
    "02.09.2019": ("SEPTIN2",),
    "44256": MARCH1,
    "44256.0": MARCH1,
    "5-Jan": (),
}


@pytest.mark.parametrize("name", DATES)
def test_dates(name):
    assert find_dates(["TP53", name, "EGFR"]) == {1: DATES[name]}


GENES = (
    *("TP53", "SEPT2", "SEPTIN2", "MARCH1", "MARCHF1", "DEC1", "NOV", "RP11-34P13.7", "HLA-A"),
    *(
        "ENSG00000141510.18",
        "5S_rRNA",
        "7SK",
        "MIR-1-2",
        "sep-1",
        "set-2",
        "mar-1",
        "1-2-3",
        "7157",
    ),
    *("NKX2-1", "C1orf112", "AC004381.6", "12-LOX", "SYMBOL|1234", "Y_RNA", "100130426", "Dec-99x"),
)


def test_genes_are_no_dates():
    assert find_dates(GENES) == {}


def test_numbers_of_five_digits_are_no_dates_among_entrez_ids():
    assert find_dates(["7157", "44256", "1956"]) == {}
    assert set(find_dates(["TP53", "44256", "EGFR"])) == {1}


def test_names_of_hgnc():
    pairs = {"SEPT2": "SEPTIN2", "MARCH10": "MARCHF10", "MARC1": "MTARC1", "DEC1": "DELEC1"}
    for former, present in pairs.items():
        assert (other_name(former), other_name(present)) == (present, former)
    assert other_name("TP53") == ""


def test_one_caution_names_all_of_them():
    assert describe_dates("t.csv", ["TP53"], ["row 2"]) == ""
    text = describe_dates("t.csv", ["TP53", "2-Sep"], ["row 2", "row 3"])
    assert text.startswith("t.csv: 1 gene name looks like a date, as a spreadsheet makes")
    assert "'2-Sep' in row 3 (SEPTIN2, once SEPT2)" in text
    text = describe_dates("t.csv", [f"{n}-Sep" for n in range(1, 13)], ())
    assert "12 gene names look like dates" in text
    assert "and 4 more" in text


def write(folder, layout):
    genes, samples = ["TP53", "2-Sep", "EGFR"], ["P1", "P2"]
    values = [[1, 2], [3, 4], [5, 6]]
    if layout == "h5ad":
        return write_h5ad(folder / "t.h5ad", __import__("numpy").array(values).T, samples, genes)
    if layout == "cbioportal":
        text = "Hugo_Symbol\tEntrez_Gene_Id\tP1\nTP53\t1\t1\n2-Sep\t2\t2\nEGFR\t3\t3\n"
    elif layout == "names":
        text = "gene_id\tsymbol\tP1\nG1\tTP53\t1\nG2\t2-Sep\t2\nG3\tEGFR\t3\n"
    elif layout == "samples-in-rows":
        text = table("case_id", samples, genes, list(zip(*values, strict=True)), "\t")
    elif layout == "mcat":
        text = "case_id\tTP53_rnaseq\t2-Sep_rnaseq\nP1\t1\t2\n"
    else:
        text = table("gene_id", genes, samples, values, "\t")
    return write_text(folder / "t.tsv", text)


LAYOUTS = {
    "genes-in-rows": "row 3",
    "names": "row 3",
    "cbioportal": "row 3",
    "samples-in-rows": "column 3",
    "mcat": "column 3",
    "h5ad": "var 2",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_reader_of_tables_says_it_once(tmp_path, layout):
    file = write(tmp_path, layout)
    source = open_expression(file)
    (caution,) = source.read(source.samples).provenance["cautions"]
    assert caution.startswith(str(file))
    assert f"'2-Sep' in {LAYOUTS[layout]} (SEPTIN2" in caution


def test_joined_sources_say_it_once_each(tmp_path):
    first = write_text(tmp_path / "a.tsv", "gene_id\tP1\nTP53\t1\n2-Sep\t2\n")
    second = write_text(tmp_path / "b.tsv", "gene_id\tP2\nTP53\t1\nEGFR\t2\n")
    source = open_expressions([first, second])
    (caution,) = source.read(source.samples).provenance["cautions"]
    assert caution.startswith(str(first))
