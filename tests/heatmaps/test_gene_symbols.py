"""Symbols beside ids: from a table in the shapes of HGNC, BioMart and Xena."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gimp_fast.errors import GimpError
from gimp_fast.heatmaps.gene_symbols import read_symbols, symbols_of, with_symbol

IDS = ("ENSG00000141510.18", "ENSG00000146648.21")
TABLES = {
    "biomart.tsv": "Gene stable ID\tGene name\nENSG00000141510\tTP53\nENSG00000999999\t\n",
    "hgnc.tsv": "hgnc_id\tsymbol\tensembl_gene_id\nHGNC:11998\tTP53\tENSG00000141510\n",
    "xena.probeMap.tsv": "id\tgene\tchrom\nENSG00000141510.16\tTP53\tchr17\n",
    "genes.csv": "gene_id,gene_name\nENSG00000141510.18,TP53\n",
}


def a_cohort(ids=(), names=()):
    return SimpleNamespace(gene_ids=ids, gene_names=names)


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_the_usual_shapes(tmp_path, name):
    (tmp_path / name).write_text(TABLES[name], encoding="utf-8")
    assert symbols_of(IDS, (), a_cohort(), tmp_path / name) == ("TP53", "")


def test_symbols_of_the_model_come_before_those_of_the_cohort():
    cohort = a_cohort(("ENSG00000146648.9", "ENSG00000141510.1"), ("EGFR", "P53"))
    assert symbols_of(IDS, ("TP53", ""), cohort, None) == ("TP53", "EGFR")
    assert symbols_of(IDS, (), a_cohort(), None) == ("", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gene_id,gene_name\nENSG9,X\n", "none of the 2 genes of the model"),
        ("gene_id,gene_name\n", "found no symbol"),
        ("gene_id,colour\na,b\n", "no column gene_name"),
    ],
)
def test_tables_with_faults(tmp_path, text, said):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with pytest.raises(GimpError, match=said):
        symbols_of(IDS, (), a_cohort(), tmp_path / "t.csv")


def test_a_gene_is_shown_with_both_names():
    assert with_symbol("ENSG1", "TP53") == "TP53 (ENSG1)"
    assert with_symbol("TP53", "TP53") == with_symbol("TP53", "") == "TP53"


def test_a_symbol_needs_an_id(tmp_path):
    (tmp_path / "t.csv").write_text("gene_id,gene_name\n,TP53\nA,\nB,C\n", encoding="utf-8")
    assert read_symbols(tmp_path / "t.csv") == {"B": "C"}
