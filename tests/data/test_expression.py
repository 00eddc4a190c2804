"""RNA readers: GDC STAR, GDC FPKM of old, Xena matrices; barcodes, aliquots, units, transforms."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from gimp_fast.data.rna import choose_samples, open_expression, open_expressions
from gimp_fast.data.rna.files import read_star_counts
from gimp_fast.errors import FaultError

GENES = ("ENSG00000000003.15", "ENSG00000002586.20_PAR_Y", "ENSG00000000419.13")
SHEET = "File ID\tFile Name\tData Type\tCase ID\tSample ID\tSample Type"
HEADER = (
    "gene_id\tgene_name\tgene_type\tunstranded\tstranded_first\tstranded_second"
    "\ttpm_unstranded\tfpkm_unstranded\tfpkm_uq_unstranded"
)


def write_text(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".gz":
        file.write_bytes(gzip.compress(text.encode()))
    else:
        file.write_text(text, encoding="utf-8")


def star(file: Path, fpkm: list[float], genes: tuple[str, ...] = GENES) -> None:
    lines = ["# gene-model: GENCODE v36", HEADER, "N_unmapped\t\t\t9\t9\t9\t\t\t"]
    for gene, value in zip(genes, fpkm, strict=True):
        lines.append(f"{gene}\tNAME\tprotein_coding\t7\t3\t4\t{value * 2}\t{value}\t{value * 3}")
    write_text(file, "\n".join(lines) + "\n")


def gdc_folder(folder: Path, samples: dict[str, list[float]], end: str = ".tsv") -> Path:
    """One STAR file a sample id, in uuid folders, with a sheet that also lists a slide image."""
    rows = [SHEET, "u\tslide.svs\tSlide Image\tTCGA-00-0001\tTCGA-00-0001-01Z\tPrimary Tumor"]
    for number, (sample, fpkm) in enumerate(samples.items()):
        name = f"f{number}.rna_seq.augmented_star_gene_counts{end}"
        star(folder / f"u{number}" / name, fpkm)
        rows.append(f"u{number}\t{name}\tGene Expression\t{sample[:12]}\t{sample}\tPrimary Tumor")
    write_text(folder / "gdc_sample_sheet.tsv", "\n".join(rows) + "\n")
    return folder


def read_all(source, transform=None):
    chosen, _ = choose_samples(source.samples)
    return chosen, source.read(chosen.values(), transform)


@pytest.mark.parametrize("end", [".tsv", ".tsv.gz"])
@pytest.mark.parametrize(
    ("column", "factor"), [("fpkm_unstranded", 1), ("tpm_unstranded", 2), ("fpkm_uq_unstranded", 3)]
)
def test_star_columns(tmp_path, end, column, factor):
    folder = gdc_folder(tmp_path, {"TCGA-00-0001-01A": [0, 1.5, 300]}, end)
    _, expression = read_all(open_expression(folder, column=column))
    expected = np.log2(np.array([[0, 1.5, 300]]) * factor + 1)
    np.testing.assert_allclose(expression.values, expected, rtol=1e-6)
    assert [gene["gene_id"] for gene in expression.genes] == list(GENES)
    assert expression.genes[0]["gene_name"] == "NAME"
    assert (expression.transform, expression.values.dtype) == ("log2(x+1)", np.float32)


def test_counts_as_given(tmp_path):
    folder = gdc_folder(tmp_path, {"TCGA-00-0001-01A": [1, 2, 3]})
    _, expression = read_all(open_expression(folder, column="unstranded"), "as given")
    np.testing.assert_array_equal(expression.values, [[7, 7, 7]])


def test_normal_tissue_is_left_out_and_the_first_aliquot_is_kept(tmp_path):
    samples = {
        "TCGA-00-0001-11A": [9, 9, 9],
        "TCGA-00-0001-01B": [8, 8, 8],
        "TCGA-00-0001-01A": [1, 1, 1],
        "TCGA-00-0002-06A": [7, 7, 7],
    }
    source = open_expression(gdc_folder(tmp_path, samples))
    chosen, dropped = choose_samples(source.samples)
    assert {case: s.barcode for case, s in chosen.items()} == {"TCGA-00-0001": "TCGA-00-0001-01A"}
    reasons = {sample.barcode: reason for sample, reason in dropped}
    assert set(reasons) == {"TCGA-00-0001-11A", "TCGA-00-0001-01B", "TCGA-00-0002-06A"}
    assert "TCGA-00-0001-01A" in reasons["TCGA-00-0001-01B"]
    assert "sample type 11" in reasons["TCGA-00-0001-11A"]


def test_ids_that_are_no_barcodes_use_the_sample_type(tmp_path):
    folder = gdc_folder(tmp_path, {"C3L-00001-01": [1, 2, 3], "C3L-00001-02": [4, 5, 6]})
    sheet = folder / "gdc_sample_sheet.tsv"
    text = sheet.read_text(encoding="utf-8").replace("C3L-00001-0\t", "C3L-00001\t")
    text = text.replace("C3L-00001-01\tPrimary Tumor", "C3L-00001-01\tSolid Tissue Normal")
    sheet.write_text(text, encoding="utf-8")
    chosen, _ = choose_samples(open_expression(folder).samples)
    assert [sample.barcode for sample in chosen.values()] == ["C3L-00001-02"]


def test_fpkm_files_of_old(tmp_path):
    write_text(tmp_path / "u" / "f.FPKM.txt.gz", f"{GENES[0]}\t0.5\n{GENES[1]}\t3\n")
    row = "u\tf.FPKM.txt.gz\tx\tTCGA-00-0001\tTCGA-00-0001-01A\tPrimary Tumor"
    other = "v\tf.FPKM-UQ.txt.gz\tx\tTCGA-00-0001\tTCGA-00-0001-01A\tPrimary Tumor"
    write_text(tmp_path / "sheet.tsv", f"{SHEET}\n{row}\n{other}\n")
    _, expression = read_all(open_expression(tmp_path, tmp_path / "sheet.tsv"))
    np.testing.assert_allclose(expression.values, np.log2([[1.5, 4]]), rtol=1e-6)


@pytest.mark.parametrize("name", ["m.tsv", "m.tsv.gz"])
def test_matrix_as_given(tmp_path, name):
    samples = "TCGA-00-0002-01A\tTCGA-00-0001-11A\tTCGA-00-0001-01A-11R-1-07"
    text = f"Ensembl_ID\t{samples}\n{GENES[0]}\t1.5\t9\t-9.97\n{GENES[1]}\t2\t9\t0\n"
    write_text(tmp_path / name, text)
    chosen, expression = read_all(open_expression(tmp_path / name))
    assert list(chosen) == ["TCGA-00-0001", "TCGA-00-0002"]
    np.testing.assert_allclose(expression.values, [[-9.97, 0], [1.5, 2]], rtol=1e-6)
    assert expression.transform == "as given"


def test_matrix_transform_on_request(tmp_path):
    write_text(tmp_path / "m.tsv", f"id\t0007\n{GENES[0]}\t3\n")
    chosen, expression = read_all(open_expression(tmp_path / "m.tsv"), "log2(x+1)")
    assert list(chosen) == ["0007"]
    np.testing.assert_allclose(expression.values, [[2]])


def test_provenance_of_gdc_files(tmp_path):
    folder = gdc_folder(tmp_path, {"TCGA-00-0001-01A": [1, 2, 3]})
    _, expression = read_all(open_expression(folder))
    assert expression.provenance == {
        "kind": "gdc",
        "paths": [str(folder)],
        "column": "fpkm_unstranded",
        "transform": "log2(x+1)",
        "gene_model": "GENCODE v36",
        "ignored_columns": [],
        "filters": [],
    }
    (dropped,) = expression.dropped_genes
    assert dropped == {
        "gene_id": "N_unmapped",
        "gene_name": "",
        "reason": "summary row of the aligner, not a gene",
        "source": str(folder),
    }


NEW_SHEET = "File ID\tFile Name\tCase ID\tSample ID\tTissue Type\tTumor Descriptor"
NEW_ROWS = {
    "primary": ("Tumor", "Primary", "01"),
    "metastatic": ("Tumor", "Metastatic", "06"),
    "recurrence": ("Tumor", "Recurrence", "02"),
    "normal": ("Normal", "Not Applicable", "11"),
    "undescribed": ("Tumor", "Not Reported", "01"),
}


@pytest.mark.parametrize("asked", ["01", "06", "11"])
def test_new_sample_sheets(tmp_path, asked):
    rows = [NEW_SHEET]
    for kind, (tissue, descriptor, _) in NEW_ROWS.items():
        name = f"{kind}.rna_seq.augmented_star_gene_counts.tsv"
        star(tmp_path / "u" / name, [1, 2, 3])
        rows.append(f"u\t{name}\tC3L-{kind}\tC3L-{kind}-x\t{tissue}\t{descriptor}")
    write_text(tmp_path / "gdc_sample_sheet.tsv", "\n".join(rows) + "\n")
    source = open_expression(tmp_path, sample_types=(asked,))
    chosen, dropped = choose_samples(source.samples)
    expected = {f"C3L-{kind}" for kind, (_, _, code) in NEW_ROWS.items() if code == asked}
    assert set(chosen) == expected
    assert len(dropped) == len(NEW_ROWS) - len(expected)
    assert source.read(chosen.values()).values.shape == (len(expected), 3)


def test_barcodes_outrank_the_words_of_a_sheet(tmp_path):
    folder = gdc_folder(tmp_path, {"TCGA-00-0001-06A": [1, 2, 3]})
    assert not choose_samples(open_expression(folder).samples)[0]
    chosen, _ = choose_samples(open_expression(folder, sample_types=("06",)).samples)
    assert list(chosen) == ["TCGA-00-0001"]


def test_a_sheet_need_not_end_its_last_line(tmp_path):
    folder = gdc_folder(tmp_path, {"TCGA-00-0001-01A": [1, 2, 3]})
    sheet = folder / "gdc_sample_sheet.tsv"
    sheet.write_bytes(sheet.read_bytes().rstrip())
    assert len(open_expression(folder).samples) == 1
    sheet.write_bytes(sheet.read_bytes()[:-20])
    assert faults_of(lambda: open_expression(folder)) == ["row-length"]


def test_files_of_several_cases_are_a_fault(tmp_path):
    folder = gdc_folder(tmp_path, {"TCGA-00-0001-01A": [1, 2, 3]})
    sheet = folder / "gdc_sample_sheet.tsv"
    text = sheet.read_text("utf-8").replace("TCGA-00-0001\tTCGA-00-0001-01A", "A, B\tA1, B1")
    sheet.write_text(text, "utf-8")
    assert faults_of(lambda: open_expression(folder)) == ["sample-without-id"]


def test_two_projects_are_one_cohort(tmp_path):
    first = gdc_folder(tmp_path / "luad", {"TCGA-00-0001-01A": [1, 2, 3]})
    second = gdc_folder(tmp_path / "lusc", {"TCGA-00-0002-01A": [4, 5, 6]})
    star(next((second / "u0").iterdir()), [6, 4], (GENES[2], GENES[0]))
    chosen, expression = read_all(open_expressions([first, second]), "as given")
    assert list(chosen) == ["TCGA-00-0001", "TCGA-00-0002"]
    np.testing.assert_array_equal(expression.values, [[1, 3], [4, 6]])
    assert [row["gene_id"] for row in expression.genes] == [GENES[0], GENES[2]]
    reasons = [row["reason"] for row in expression.dropped_genes if row["gene_id"] == GENES[1]]
    assert reasons == [f"not in every source: absent from {second}"]
    assert expression.provenance["column"] == "fpkm_unstranded"
    assert expression.provenance["gene_model"] == "GENCODE v36"


def test_one_sheet_for_two_folders(tmp_path):
    folder = gdc_folder(tmp_path / "a", {f"TCGA-00-000{n}-01A": [n, 2, 3] for n in range(4)})
    sheet = folder / "gdc_sample_sheet.tsv"
    other = tmp_path / "b"
    other.mkdir()
    for name in ("u1", "u3"):
        (folder / name).rename(other / name)
    chosen, expression = read_all(open_expressions([folder, other], sheet), "as given")
    assert len(chosen) == 4
    np.testing.assert_array_equal(expression.values[:, 0], [0, 1, 2, 3])
    next((other / "u3").iterdir()).unlink()
    joined = open_expressions([folder, other], sheet)
    assert faults_of(lambda: read_all(joined)) == ["missing-file"]


def test_matrix_and_gdc_files_have_other_units(tmp_path):
    folder = gdc_folder(tmp_path / "gdc", {"TCGA-00-0001-01A": [1, 2, 3]})
    write_text(tmp_path / "m.tsv", "gene_id\tP\nA\t1\n")
    assert faults_of(lambda: open_expressions([folder, tmp_path / "m.tsv"])) == ["mixed-units"]


def test_many_files_in_worker_processes(tmp_path):
    fpkm = {f"TCGA-00-{n:04d}-01A": [n, n + 0.5, 2 * n] for n in range(70)}
    folder = gdc_folder(tmp_path, fpkm)
    damaged = next((folder / "u50").iterdir())
    _, one = read_all(open_expression(folder, workers=1), "as given")
    np.testing.assert_array_equal(one.values, np.array([*fpkm.values()], np.float32))
    _, two = read_all(open_expression(folder, workers=2), "as given")
    np.testing.assert_array_equal(two.values, one.values)
    star(damaged, [1, 2, 3], GENES[::-1])
    assert faults_of(lambda: read_all(open_expression(folder, workers=2))) == ["gene-list"]


def test_a_first_file_of_another_length_costs_no_values(tmp_path):
    folder = gdc_folder(tmp_path, {f"TCGA-00-000{n}-01A": [n, 2, 3] for n in range(3)})
    star(next((folder / "u0").iterdir()), [1, 2], GENES[:2])
    source = open_expression(folder)
    loaded = source.load(list(source.samples))
    np.testing.assert_array_equal(loaded.values, [[0, 0, 0], [1, 2, 3], [2, 2, 3]])
    assert [fault.kind for fault in loaded.faults] == ["gene-list"]


def test_no_readable_file(tmp_path):
    folder = gdc_folder(tmp_path, {f"TCGA-00-000{n}-01A": [1, 2, 3] for n in range(2)})
    for name in ("u0", "u1"):
        next((folder / name).iterdir()).write_bytes(b"")
    assert faults_of(lambda: read_all(open_expression(folder))) == ["unreadable-file"] * 2


def test_real_gdc_file(real_data):
    genes, values = read_star_counts(
        real_data / "gdc" / "ncigdc_test_set_1.final.tsv.gz", "fpkm_unstranded"
    )
    assert len(genes) == len(values) == 96
    assert genes["gene_id"][0] == "ENSG00000000003.15"
    assert values[0] == pytest.approx(15420.955417694371)


def faults_of(action) -> list[str]:
    with pytest.raises(FaultError) as error:
        action()
    return [fault.kind for fault in error.value.faults]


def second_file(folder: Path) -> Path:
    return next((folder / "u1").iterdir())


BREAKS = {
    "other-genes": (lambda f: star(f, [1, 2, 3], (*GENES[:2], "ENSG9.1")), "gene-list"),
    "other-order": (lambda f: star(f, [1, 2, 3], GENES[::-1]), "gene-list"),
    "fewer-genes": (lambda f: star(f, [1, 2], GENES[:2]), "gene-list"),
    "negative": (lambda f: star(f, [1, -2, 3]), "negative-expression"),
    "nan": (lambda f: star(f, [1, float("nan"), 3]), "expression-not-finite"),
    "infinite": (lambda f: star(f, [1, float("inf"), 3]), "expression-not-finite"),
    "missing": (lambda f: f.unlink(), "missing-file"),
    "cut": (lambda f: f.write_bytes(f.read_bytes()[:-3]), "truncated-file"),
    "empty": (lambda f: f.write_bytes(b""), "unreadable-file"),
    "number-with-underscore": (
        lambda f: f.write_text(f.read_text("utf-8").replace("3.0", "3_0"), "utf-8"),
        "unreadable-file",
    ),
    "long-row": (
        lambda f: f.write_text(f.read_text("utf-8").replace("4.0", "4.0\t5"), "utf-8"),
        "row-length",
    ),
    "stray-return": (
        lambda f: f.write_text(f.read_text("utf-8").replace("NAME", "NA\rME"), "utf-8"),
        "row-length",
    ),
    "utf-16": (lambda f: f.write_text(f.read_text("utf-8"), "utf-16"), "unreadable-file"),
    "not-gene-ids": (
        lambda f: f.write_text(f.read_text("utf-8").replace("gene_id", "x"), "utf-8"),
        "missing-column",
    ),
    "no-column": (
        lambda f: f.write_text(f.read_text("utf-8").replace("fpkm_", "x_"), "utf-8"),
        "missing-column",
    ),
    "text": (
        lambda f: f.write_text(f.read_text("utf-8").replace("2.0", "two"), "utf-8"),
        "unreadable-file",
    ),
}


@pytest.mark.parametrize("case", BREAKS)
def test_a_bad_gdc_file_is_one_fault_that_names_it(tmp_path, case):
    fpkm = [1.0, 2.0, 3.0]
    folder = gdc_folder(tmp_path, {f"TCGA-00-000{n}-01A": fpkm for n in range(4)})
    damage, kind = BREAKS[case]
    name = second_file(folder).name
    damage(second_file(folder))
    with pytest.raises(FaultError) as error:
        read_all(open_expression(folder))
    assert [fault.kind for fault in error.value.faults] == [kind]
    assert name in error.value.faults[0].where


def test_a_bad_first_file_does_not_blame_the_others(tmp_path):
    folder = gdc_folder(tmp_path, {f"TCGA-00-000{n}-01A": [1, 2, 3] for n in range(4)})
    first = next((folder / "u0").iterdir())
    star(first, [1, 2], GENES[:2])
    with pytest.raises(FaultError) as error:
        read_all(open_expression(folder))
    assert [(fault.kind, fault.where) for fault in error.value.faults] == [
        ("gene-list", str(first))
    ]


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
        ("# gene-model: GENCODE v36\n" + HEADER + "\n", "single-sample"),
        ("id,a\nG,1\n", "no-samples"),
        ("", "no-samples"),
    ],
)
def test_bad_matrices(tmp_path, text, kind):
    write_text(tmp_path / "m.tsv", text)
    assert faults_of(lambda: read_all(open_expression(tmp_path / "m.tsv"))) == [kind]


def test_truncated_gzip_matrix(tmp_path):
    lines = "".join(f"G{n}\t{n * 1.37}\n" for n in range(2000))
    write_text(tmp_path / "m.tsv.gz", "id\ta\n" + lines)
    content = (tmp_path / "m.tsv.gz").read_bytes()
    (tmp_path / "m.tsv.gz").write_bytes(content[: len(content) // 2])
    assert faults_of(lambda: read_all(open_expression(tmp_path / "m.tsv.gz"))) == ["truncated-file"]


@pytest.mark.parametrize(
    ("sheet", "kind"),
    [
        (None, "sample-sheet"),
        ("File ID\tFile Name\tCase ID\n", "missing-column"),
        (SHEET + "\n", "no-samples"),
    ],
    ids=["none", "no-sample-id", "no-rows"],
)
def test_bad_sample_sheets(tmp_path, sheet, kind):
    if sheet is not None:
        write_text(tmp_path / "gdc_sample_sheet.2024-01-01.tsv", sheet)
    assert faults_of(lambda: open_expression(tmp_path)) == [kind]
