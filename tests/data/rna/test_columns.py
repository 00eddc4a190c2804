"""Which columns are samples, which are genes, and which describe them."""

from __future__ import annotations

import numpy as np
import pytest
from builders.faults import faults_of
from builders.rna_files import write_text

from gimp_fast.data.rna.columns import sample_name
from gimp_fast.data.rna.expression import open_expression

SAMPLES = ("TCGA-00-0001-01A", "TCGA-00-0002-01A")
CASES = frozenset(name[:12] for name in SAMPLES)
COMMENT = '# Program:featureCounts v2.0.3; Command:"featureCounts" "-a" "genes.gtf" "-o" "c.txt"\n'


def feature_counts(names, comment=COMMENT) -> str:
    """A table in the shape of featureCounts, which names samples by their files."""
    rows = [
        f"ENSG0000000000{n}.1\tchr1;chr1\t1;20\t9;30\t+;+\t{90 + n}\t{n}\t{2 * n}" for n in (1, 2)
    ]
    header = "\t".join(["Geneid", "Chr", "Start", "End", "Strand", "Length", *names])
    return comment + "\n".join([header, *rows]) + "\n"


ENDINGS = ("", ".bam", ".sorted.bam", "Aligned.sortedByCoord.out.bam", "_sorted.bam", ".counts.txt")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("folder", ["", "/data/bam/", "../bam/", "C:\\bam\\"])
@pytest.mark.parametrize("comment", ["", COMMENT])
def test_feature_counts(tmp_path, ending, folder, comment):
    names = [f"{folder}{name}{ending}" for name in SAMPLES]
    file = write_text(tmp_path / "counts.txt", feature_counts(names, comment))
    source = open_expression(file, known_cases=CASES)
    assert tuple(sample.barcode for sample in source.samples) == SAMPLES
    expression = source.read(source.samples)
    np.testing.assert_array_equal(expression.values, [[1, 2], [2, 4]])
    assert [row["gene_id"] for row in expression.genes] == [
        "ENSG00000000001.1",
        "ENSG00000000002.1",
    ]
    ignored = ["Chr", "Start", "End", "Strand", "Length"]
    assert expression.provenance["ignored_columns"] == ignored
    renamed = {new: old for new, old in zip(SAMPLES, names, strict=True) if new != old}
    assert expression.provenance["renamed_samples"] == renamed


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("TCGA.00.0001.01A", set(), "TCGA-00-0001-01A"),
        ("TCGA.00.0001.01A.11R.A1B2.07", set(), "TCGA-00-0001-01A-11R-A1B2-07"),
        ("X.data.TCGA.00.0001.01A.sorted.bam", set(), "TCGA-00-0001-01A"),
        ("bam/P1.bam", {"P1"}, "P1"),
        ("bam/P1.bam", set(), "P1"),
        ("bam/P1.bam", {"P2"}, "bam/P1.bam"),
        ("P1.bam", {"P1.bam"}, "P1.bam"),
        ("P1.counts", set(), "P1.counts"),
        ("P1.counts", {"P1"}, "P1"),
        ("P_1", set(), "P_1"),
        ("a.b.c", {"P1"}, "a.b.c"),
        ("/", set(), "/"),
    ],
)
def test_names_of_samples(name, known, expected):
    assert sample_name(name, frozenset(known)) == expected


def test_two_files_of_one_sample(tmp_path):
    names = [f"{SAMPLES[0]}.bam", f"{SAMPLES[0]}.sorted.bam"]
    file = write_text(tmp_path / "counts.txt", feature_counts(names))
    ((kind, message),) = faults_of(lambda: open_expression(file, known_cases=CASES))
    assert kind == "duplicate-sample"
    assert f"'{SAMPLES[0]}' more than once, as '{names[1]}'" in message


FACTS = (
    *("Length", "length", "gene_length", "Gene.Length", "width", "start", "end", "Start", "chr"),
    *("entrez", "ENTREZID", "entrez_id", "Entrez Gene ID", "exon_count", "gc_content", "strand"),
    *("start_position", "End.Position", "transcript_length", "baseMean", "log2FoldChange", "padj"),
)


@pytest.mark.parametrize("fact", FACTS)
@pytest.mark.parametrize("known", [frozenset(), frozenset({"P1"})])
def test_numbers_about_genes_are_no_patients(tmp_path, fact, known):
    file = write_text(tmp_path / "t.tsv", f"Geneid\t{fact}\tP1\nTP53\t100\t1\nEGFR\t200\t2\n")
    source = open_expression(file, known_cases=known)
    assert [sample.case_id for sample in source.samples] == ["P1"]
    expression = source.read(source.samples)
    np.testing.assert_array_equal(expression.values, [[1, 2]])
    assert expression.provenance["ignored_columns"] == [fact]


def test_a_patient_may_have_the_name_of_a_fact(tmp_path):
    file = write_text(tmp_path / "t.tsv", "gene\tstart\tP1\nTP53\t100\t1\n")
    source = open_expression(file, known_cases={"start", "P1"})
    assert [sample.case_id for sample in source.samples] == ["start", "P1"]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        (",gene_name,P1", "0,TP53,1"),
        ("Unnamed: 0,Gene Symbol,P1", "0,TP53,1"),
        ("Chr,Start,Geneid,P1", "chr1,5,TP53,1"),
        ("gene_name,Chr,P1", "TP53,chr1,1"),
        ("gene,description,P1", "TP53,tumor protein,1"),
        ("gene_name,P1", "1,TP53,1"),
    ],
)
def test_the_column_that_names_the_genes(tmp_path, header, row):
    file = write_text(tmp_path / "t.csv", f"{header}\n{row}\n")
    source = open_expression(file)
    assert [sample.case_id for sample in source.samples] == ["P1"]
    expression = source.read(source.samples)
    assert [row["gene_id"] for row in expression.genes] == ["TP53"]
    np.testing.assert_array_equal(expression.values, [[1]])


def test_gct(tmp_path):
    text = "#1.2\n1\t1\nName\tDescription\tP1\nENSG00000141510.18\tTP53\t1\n"
    source = open_expression(write_text(tmp_path / "t.gct", text))
    expression = source.read(source.samples)
    assert expression.genes[0]["gene_name"] == "TP53"
    np.testing.assert_array_equal(expression.values, [[1]])


@pytest.mark.parametrize("fact", ["age", "Age", "OS.time", "OS", "Days_to_death", "vital.status"])
def test_facts_of_patients_are_no_genes(tmp_path, fact):
    file = write_text(tmp_path / "t.csv", f"case_id,{fact},TP53\nP1,50,1\n")
    source = open_expression(file)
    expression = source.read(source.samples)
    assert [row["gene_id"] for row in expression.genes] == ["TP53"]
    assert expression.provenance["ignored_columns"] == [fact]


def test_a_first_row_of_values_is_no_header(tmp_path):
    file = write_text(tmp_path / "t.tsv", "ENSG00000141510.18\t5\nENSG00000000003.15\t6\n")
    ((kind, message),) = faults_of(lambda: open_expression(file))
    assert kind == "no-samples"
    assert "a gene in the first row" in message
