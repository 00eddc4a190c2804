"""Gene names, lists and signatures; choosing genes; aligning new patients to a gene list."""

from __future__ import annotations

import numpy as np
import pytest
from builders.faults import faults_of, kinds_of

from gimp_fast.data.rna.gene_lists import gene_key, read_gene_list, read_gene_sets
from gimp_fast.data.rna.genes import align_expression, filter_genes
from gimp_fast.data.rna.source import Expression

GENES = [
    ("ENSG00000141510.18", "TP53", "protein_coding"),
    ("ENSG00000002586.20", "CD99", "protein_coding"),
    ("ENSG00000002586.20_PAR_Y", "CD99", "protein_coding"),
    ("ENSG00000228572.7", "RP11-34P13.7", "lncRNA"),
    ("ENSG00000015479.19", "MATR3", "protein_coding"),
    ("ENSG00000280987.4", "MATR3", "protein_coding"),
]
PROVENANCE = {"paths": ["/cohort/rna"], "filters": []}


def expression(genes=GENES) -> Expression:
    """Column g of patient n is 10 n + g."""
    names = ("gene_id", "gene_name", "gene_type")
    rows = [dict(zip(names, gene, strict=True)) for gene in genes]
    values = np.arange(2)[:, None] * 10 + np.arange(len(genes))
    return Expression(values.astype(np.float32), rows, "as given", [], PROVENANCE)


@pytest.mark.parametrize(
    ("gene_id", "key"),
    [
        ("ENSG00000002586.20", "ENSG00000002586"),
        ("ENSG00000002586.20_PAR_Y", "ENSG00000002586_PAR_Y"),
        ("ENSG00000002586_PAR_Y", "ENSG00000002586_PAR_Y"),
        ("ENSG00000002586", "ENSG00000002586"),
        ("ENSMUSG00000000001.5", "ENSMUSG00000000001"),
        ("RP11-34P13.7", "RP11-34P13.7"),
        ("TP53", "TP53"),
        ("7157", "7157"),
        ("ENSG00000002586.x", "ENSG00000002586.x"),
        ("ENSG1.2", "ENSG1.2"),
        ("", ""),
    ],
)
def test_gene_key(gene_id, key):
    assert gene_key(gene_id) == key


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "# mine\nTP53\n\n  EGFR # a comment\nTP53\nRP11-34P13.7"),
        ("list.csv", "n,Gene\n1,TP53\n2,EGFR\n3,TP53\n4,RP11-34P13.7\n"),
        ("list.tsv", "symbol\tx\nTP53\t\nEGFR\t\nRP11-34P13.7\t\n"),
        ("genes", "\ufeffTP53\r\nEGFR\r\nRP11-34P13.7\r\n"),
    ],
)
def test_gene_lists(tmp_path, name, text):
    (tmp_path / name).write_bytes(text.encode())
    assert read_gene_list(tmp_path / name) == ["TP53", "EGFR", "RP11-34P13.7"]


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.txt", b"", "no-genes"),
        ("a.txt", b"# TP53\n", "no-genes"),
        ("a.txt", b"TP53 EGFR\n", "gene-list-file"),
        ("a.txt", b"TP53,EGFR\n", "gene-list-file"),
        ("a.txt", "TP53\n".encode("utf-16-le"), "encoding"),
        ("a.txt", b"TP\xe953\n", "encoding"),
        ("a.csv", b"TP53\nEGFR\n", "missing-column"),
        ("a.csv", b"gene,x\nTP53\n", "row-length"),
        ("a.csv", b"gene\nNA\n", "no-genes"),
    ],
)
def test_bad_gene_lists(tmp_path, name, content, kind):
    (tmp_path / name).write_bytes(content)
    assert kinds_of(lambda: read_gene_list(tmp_path / name)) == [kind]


def test_missing_files(tmp_path):
    assert faults_of(lambda: read_gene_list(tmp_path / "a.txt"))[0][0] == "missing-file"
    assert faults_of(lambda: read_gene_sets(tmp_path / "a.gmt"))[0][0] == "missing-file"


SETS = {"Hypoxia": ("VEGFA", "CA9", "LDHA"), "P53": ("TP53",)}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("h.gmt", "Hypoxia\thttp://x\tVEGFA\tCA9\tLDHA\tCA9\nP53\tna\tTP53\n"),
        ("signatures.csv", "Hypoxia,P53\nVEGFA,TP53\nCA9,\nCA9,\nLDHA,nan\n"),
        ("ragged.csv", "Hypoxia,P53\nVEGFA,TP53\nCA9\nLDHA\n"),
        ("indexed.csv", ",Hypoxia,P53\n0,VEGFA,TP53\n1,CA9,\n2,LDHA,\n"),
        ("tabs.tsv", "Hypoxia\tP53\nVEGFA\tTP53\nCA9\t\nLDHA\t\n"),
    ],
)
def test_gene_sets(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_gene_sets(tmp_path / name) == SETS
    assert list(read_gene_sets(tmp_path / name)) == list(SETS)


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.gmt", "", "no-genes"),
        ("a.gmt", "Hypoxia\tna\n", "row-length"),
        ("a.gmt", "Hypoxia\tna\t\n", "empty-gene-set"),
        ("a.gmt", "A\tna\tTP53\nA\tna\tEGFR\n", "duplicate-gene-set"),
        ("a.csv", "A,B\nTP53,\n", "empty-gene-set"),
        ("a.csv", "A,A\nTP53,EGFR\n", "duplicate-gene-set"),
        ("a.csv", "A\nTP53,EGFR\n", "row-length"),
        ("a.csv", "A,\nTP53,EGFR\n", "empty-gene-set"),
    ],
)
def test_bad_gene_sets(tmp_path, name, text, kind):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert kinds_of(lambda: read_gene_sets(tmp_path / name)) == [kind]


def kept(expression: Expression) -> list[str]:
    return [row["gene_id"] for row in expression.genes]


def dropped(expression: Expression) -> dict[str, str]:
    return {row["gene_id"]: row["reason"] for row in expression.dropped_genes}


def test_nothing_asked_for():
    same, sets = filter_genes(expression())
    assert (kept(same), sets) == (kept(expression()), {})
    assert not same.dropped_genes


def test_by_biotype():
    result, _ = filter_genes(expression(), gene_types=("lncRNA",))
    assert kept(result) == ["ENSG00000228572.7"]
    np.testing.assert_array_equal(result.values, [[3], [13]])
    assert len(result.dropped_genes) == 5
    row = result.dropped_genes[0]
    assert row == {
        "gene_id": "ENSG00000141510.18",
        "gene_name": "TP53",
        "reason": "gene type not kept",
        "source": "/cohort/rna",
    }
    (note,) = result.provenance["filters"]
    assert note == {"filter": "gene_types", "types": ["lncRNA"], "kept": 1}
    assert PROVENANCE["filters"] == []


def test_by_list():
    names = ["CD99", "ENSG00000228572", "ENSG00000141510.3", "NEVER", "TP53"]
    result, _ = filter_genes(expression(), gene_list=names)
    assert kept(result) == ["ENSG00000002586.20", "ENSG00000228572.7", "ENSG00000141510.18"]
    np.testing.assert_array_equal(result.values, [[1, 3, 0], [11, 13, 10]])
    reasons = dropped(result)
    assert reasons["NEVER"] == "not measured"
    assert reasons["ENSG00000002586.20_PAR_Y"] == "not in the gene list"
    assert len(reasons) == 4


def test_the_copy_on_y_by_its_id():
    result, _ = filter_genes(expression(), gene_list=["ENSG00000002586_PAR_Y"])
    assert kept(result) == ["ENSG00000002586.20_PAR_Y"]


def test_by_sets():
    sets = {"A": ("MISSING", "RP11-34P13.7", "TP53"), "B": ("CD99", "TP53")}
    result, columns = filter_genes(expression(), gene_sets=sets)
    assert kept(result) == ["ENSG00000228572.7", "ENSG00000141510.18", "ENSG00000002586.20"]
    assert columns == {"A": (0, 1), "B": (2, 1)}
    np.testing.assert_array_equal(result.values[:, columns["B"]], [[1, 0], [11, 10]])
    missing = next(row for row in result.dropped_genes if row["gene_id"] == "MISSING")
    assert (missing["reason"], missing["source"]) == ("not measured", "gene set A")
    assert dropped(result)["ENSG00000015479.19"] == "in no gene set"


def test_all_filters_in_turn():
    result, columns = filter_genes(
        expression(),
        gene_types=("protein_coding",),
        gene_list=["CD99", "TP53", "RP11-34P13.7"],
        gene_sets={"A": ["TP53"]},
    )
    assert kept(result) == ["ENSG00000141510.18"]
    assert columns == {"A": (0,)}
    assert [note["filter"] for note in result.provenance["filters"]] == [
        *("gene_types", "gene_list", "gene_sets")
    ]
    assert len([row for row in result.dropped_genes if row["reason"] != "not measured"]) == 5


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({"gene_types": ("snRNA",)}, ["no-genes"]),
        ({"gene_list": ["A", "B"]}, ["no-genes"]),
        ({"gene_list": []}, ["no-genes"]),
        ({"gene_list": ["TP53", "MATR3"]}, ["ambiguous-gene"]),
        ({"gene_sets": {"A": ["TP53"], "B": ["X"], "C": ["Y"]}}, ["empty-gene-set"] * 2),
        ({"gene_sets": {"A": ["MATR3"]}}, ["ambiguous-gene"]),
    ],
)
def test_impossible_choices(options, kinds):
    assert kinds_of(lambda: filter_genes(expression(), **options)) == kinds


def test_no_types_recorded():
    plain = expression([("TP53", "", ""), ("EGFR", "", "")])
    faults = faults_of(lambda: filter_genes(plain, gene_types=("protein_coding",)))
    assert [kind for kind, _ in faults] == ["no-gene-types"]


def test_aligned_by_id_without_version():
    reference = ["ENSG00000228572.1", "ENSG00000002586.1_PAR_Y", "ENSG00000000009.1"]
    aligned, missing = align_expression(expression(), reference)
    np.testing.assert_array_equal(aligned.values, [[3, 2, np.nan], [13, 12, np.nan]])
    assert aligned.values.dtype == np.float32
    assert missing == ("ENSG00000000009.1",)


SYMBOLS = [("TP53", "", ""), ("CD99", "", ""), ("MATR3", "", ""), ("EGFR", "", "")]


def test_symbols_align_to_ensembl_ids():
    ids, names, _ = zip(*GENES, strict=True)
    aligned, missing = align_expression(expression(SYMBOLS), ids[:4], names[:4])
    # the copy on Y is not measured, though its name is
    np.testing.assert_array_equal(aligned.values[0], [0, 1, np.nan, np.nan])
    assert missing == (ids[2], ids[3])


def test_ensembl_ids_align_to_symbols():
    reference = [gene[0] for gene in SYMBOLS]
    aligned, missing = align_expression(expression(), reference)
    # two genes are called MATR3: no guess
    np.testing.assert_array_equal(aligned.values[0], [0, 1, np.nan, np.nan])
    assert missing == ("MATR3", "EGFR")


def test_a_measured_gene_stands_for_one_of_the_list():
    source = expression([("G1", "A", ""), ("G2", "B", ""), ("G3", "C", ""), ("D", "", "")])
    reference = ["G1", "G9", "G8", "D", "G2"]
    # A is taken by its id, and two genes of the list are called C
    aligned, missing = align_expression(source, [*reference, "G7"], ["", "A", "C", "", "", "C"])
    np.testing.assert_array_equal(aligned.values[0], [0, np.nan, np.nan, 3, 1, np.nan])
    assert missing == ("G9", "G8", "G7")


def test_names_do_not_override_ids():
    source = expression([("G1", "A", ""), ("G2", "B", "")])
    aligned, missing = align_expression(source, ["G2", "G1"], ["A", "B"])
    assert missing == ()
    np.testing.assert_array_equal(aligned.values[0], [1, 0])


def test_the_same_list_is_the_same_values():
    ids = [gene[0] for gene in GENES]
    aligned, missing = align_expression(expression(), ids[::-1])
    np.testing.assert_array_equal(aligned.values, expression().values[:, ::-1])
    assert missing == ()


def test_two_versions_of_a_gene_are_told_apart_or_missing():
    source = expression([("ENSG00000000001.1", "", ""), ("ENSG00000000001.2", "", "")])
    aligned, missing = align_expression(source, ["ENSG00000000001.2", "ENSG00000000001.1"])
    assert missing == ()
    np.testing.assert_array_equal(aligned.values[0], [1, 0])
    assert faults_of(lambda: align_expression(source, ["ENSG00000000001.3"]))


def test_most_genes_missing():
    reference = ["ENSG00000141510.1", "ENSG00000000008.1", "ENSG00000000009.1"]
    ((kind, message),) = faults_of(lambda: align_expression(expression(), reference))
    assert kind == "genes-missing"
    assert "2 of 3 genes" in message
    assert "ENSG00000000008.1" in message
    assert "ENSG00000141510.18" in message
    assert len(align_expression(expression(), reference[:2])[1]) == 1


def test_names_must_be_one_an_id():
    with pytest.raises(ValueError, match="1 gene names for 2"):
        align_expression(expression(), ["a", "b"], ["c"])
