"""Gene lists and signatures under the names and in the shapes that tools give them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from builders.faults import faults_of

from gimp_fast.data.rna.gene_lists import read_gene_list, read_gene_sets

LISTS = {
    "semicolons.csv": "n;gene\n1;TP53\n2;EGFR\n",
    "tabs.csv": "n\tsymbol\n1\tTP53\n2\tEGFR\n",
    "commas.tsv": "gene,x\nTP53,\nEGFR,\n",
    "table.txt": "# mine\nsymbol\tn\nTP53\t1\nEGFR\t2\n",
    "of_r.txt": '"TP53"\n"EGFR"\n',
    "no_line_end.txt": "TP53\nEGFR",
    "mac.txt": "TP53\rEGFR\r",
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_gene_lists(tmp_path, name, encoding):
    (tmp_path / name).write_bytes(LISTS[name].encode(encoding))
    assert read_gene_list(tmp_path / name) == ["TP53", "EGFR"]


SETS = {
    "s.csv": "A;B\nTP53;KRAS\nEGFR;\n",
    "s.txt": "A\tB\nTP53\tKRAS\nEGFR\t\n",
    "s.gmt": "A\tx\tTP53\tEGFR\nB\tx\tKRAS",
    "s.gmt.gz": "A\tx\tTP53\tEGFR\nB\tx\tKRAS\n",
}


@pytest.mark.parametrize("name", SETS)
def test_signatures(tmp_path, name):
    content = SETS[name].encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert read_gene_sets(tmp_path / name) == {"A": ("TP53", "EGFR"), "B": ("KRAS",)}


@pytest.mark.parametrize("read", [read_gene_list, read_gene_sets])
def test_files_that_are_no_text(tmp_path, read):
    (tmp_path / "genes.csv").write_bytes(b"PK\x03\x04 and more")
    ((kind, message),) = faults_of(lambda: read(tmp_path / "genes.csv"))
    assert (kind, "zip archive or Excel workbook" in message) == ("encoding", True)


def test_the_hallmark_sets_are_in_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sets = read_gene_sets("hallmark")
    assert len(sets) == 50
    assert all(name.startswith("HALLMARK_") for name in sets)
    assert "VEGFA" in sets["HALLMARK_HYPOXIA"]
    assert len(set().union(*sets.values())) == 4241
    Path("hallmark").write_text("A,B\nTP53,KRAS\n", encoding="utf-8")  # a file comes first
    assert read_gene_sets("hallmark") == {"A": ("TP53",), "B": ("KRAS",)}
