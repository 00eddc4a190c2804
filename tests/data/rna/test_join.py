"""Several sources of expression as one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from builders.faults import faults_of, kinds_of
from builders.rna_files import (
    gdc_folder,
    star,
    write_text,
)

from gimp_fast.data.rna.expression import open_expressions
from gimp_fast.data.rna.samples import choose_samples

GENES = ("ENSG00000000003.15", "ENSG00000002586.20_PAR_Y", "ENSG00000000419.13")


MCAT = "case_id,slide_id,TP53_rnaseq\nTCGA-00-0002,TCGA-00-0002-01Z,-0.5\n"


def write_star(file: Path, fpkm: list[float], genes: tuple[str, ...] = GENES) -> None:
    write_text(file, star(genes, fpkm))


def read(source, transform=None):
    chosen, _ = choose_samples(source.samples)
    return chosen, source.read(chosen.values(), transform)


def ids(expression) -> list[str]:
    return [row["gene_id"] for row in expression.genes]


def test_two_projects_are_one_cohort(tmp_path):
    first = gdc_folder(tmp_path / "luad", GENES, {"TCGA-00-0001-01A": [1, 2, 3]})
    second = gdc_folder(tmp_path / "lusc", GENES, {"TCGA-00-0002-01A": [4, 5, 6]})
    write_star(next((second / "u0").iterdir()), [6, 4], (GENES[2], GENES[0]))
    chosen, expression = read(open_expressions([first, second]), "as given")
    assert list(chosen) == ["TCGA-00-0001", "TCGA-00-0002"]
    np.testing.assert_array_equal(expression.values, [[1, 3], [4, 6]])
    assert [row["gene_id"] for row in expression.genes] == [GENES[0], GENES[2]]
    reasons = [row["reason"] for row in expression.dropped_genes if row["gene_id"] == GENES[1]]
    assert reasons == [f"not in every source: absent from {second}"]
    assert expression.provenance["column"] == "fpkm_unstranded"
    assert expression.provenance["gene_model"] == "GENCODE v36"


def test_one_sheet_for_two_folders(tmp_path):
    folder = gdc_folder(tmp_path / "a", GENES, {f"TCGA-00-000{n}-01A": [n, 2, 3] for n in range(4)})
    sheet = folder / "gdc_sample_sheet.tsv"
    other = tmp_path / "b"
    other.mkdir()
    for name in ("u1", "u3"):
        (folder / name).rename(other / name)
    chosen, expression = read(open_expressions([folder, other], sheet), "as given")
    assert len(chosen) == 4
    np.testing.assert_array_equal(expression.values[:, 0], [0, 1, 2, 3])
    next((other / "u3").iterdir()).unlink()
    joined = open_expressions([folder, other], sheet)
    assert kinds_of(lambda: read(joined)) == ["missing-file"]


def test_matrix_and_gdc_files_have_other_units(tmp_path):
    folder = gdc_folder(tmp_path / "gdc", GENES, {"TCGA-00-0001-01A": [1, 2, 3]})
    write_text(tmp_path / "m.tsv", "gene_id\tP\nA\t1\n")
    assert kinds_of(lambda: open_expressions([folder, tmp_path / "m.tsv"])) == ["mixed-units"]


def matrices(folder: Path) -> list[Path]:
    first = "gene_id\tgene_name\tP1\tP2\nENSG00000000001.2\tA\t1\t2\nENSG00000000002.1\t\t3\t4\n"
    first += "ENSG00000000003.1\tC\t5\t6\n"
    second = "gene_id\tgene_name\tP3\nENSG00000000002.9\tB\t7\nENSG00000000004.1\tD\t8\n"
    second += "ENSG00000000001.2_PAR_Y\tA\t9\nENSG00000000001.3\tA\t10\n"
    return [write_text(folder / "a.tsv", first), write_text(folder / "b.tsv", second)]


def test_several_sources(tmp_path):
    paths = matrices(tmp_path)
    source = open_expressions(paths)
    chosen, expression = read(source)
    assert list(chosen) == ["P1", "P2", "P3"]
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
    versions = "gene_id\tP9\nENSG00000000001.1\t1\nENSG00000000001.2\t2\n"
    two = open_expressions([first, write_text(tmp_path / "v.tsv", versions)])
    assert [kind for kind, _ in faults_of(lambda: read(two))] == ["duplicate-gene"]
