"""GDC downloads: STAR files, the older FPKM files, sample sheets, aliquots, units."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from builders.faults import kinds_of
from builders.rna_files import (
    SHEET,
    gdc_folder,
    star,
    write_text,
)

from gimp_fast.data.rna.expression import open_expression
from gimp_fast.data.rna.gdc_files import read_gdc_file, read_gene_rows
from gimp_fast.data.rna.samples import choose_samples
from gimp_fast.errors import FaultError

GENES = ("ENSG00000000003.15", "ENSG00000002586.20_PAR_Y", "ENSG00000000419.13")


def write_star(file: Path, fpkm: list[float], genes: tuple[str, ...] = GENES) -> None:
    write_text(file, star(genes, fpkm))


def read(source, transform=None):
    chosen, _ = choose_samples(source.samples)
    return chosen, source.read(chosen.values(), transform)


@pytest.mark.parametrize("end", [".tsv", ".tsv.gz"])
@pytest.mark.parametrize(
    ("column", "factor"), [("fpkm_unstranded", 1), ("tpm_unstranded", 2), ("fpkm_uq_unstranded", 3)]
)
def test_star_columns(tmp_path, end, column, factor):
    folder = gdc_folder(tmp_path, GENES, {"TCGA-00-0001-01A": [0, 1.5, 300]}, end)
    _, expression = read(open_expression(folder, column=column))
    expected = np.log2(np.array([[0, 1.5, 300]]) * factor + 1)
    np.testing.assert_allclose(expression.values, expected, rtol=1e-6)
    assert [gene["gene_id"] for gene in expression.genes] == list(GENES)
    assert expression.genes[0]["gene_name"] == "NAME"
    assert (expression.transform, expression.values.dtype) == ("log2(x+1)", np.float32)


def test_counts_as_given(tmp_path):
    folder = gdc_folder(tmp_path, GENES, {"TCGA-00-0001-01A": [1, 2, 3]})
    _, expression = read(open_expression(folder, column="unstranded"), "as given")
    np.testing.assert_array_equal(expression.values, [[7, 7, 7]])


def test_normal_tissue_is_left_out_and_the_first_aliquot_is_kept(tmp_path):
    samples = {
        "TCGA-00-0001-11A": [9, 9, 9],
        "TCGA-00-0001-01B": [8, 8, 8],
        "TCGA-00-0001-01A": [1, 1, 1],
        "TCGA-00-0002-06A": [7, 7, 7],
    }
    source = open_expression(gdc_folder(tmp_path, GENES, samples))
    chosen, dropped = choose_samples(source.samples)
    assert {case: s.barcode for case, s in chosen.items()} == {"TCGA-00-0001": "TCGA-00-0001-01A"}
    reasons = {sample.barcode: reason for sample, reason in dropped}
    assert set(reasons) == {"TCGA-00-0001-11A", "TCGA-00-0001-01B", "TCGA-00-0002-06A"}
    assert "TCGA-00-0001-01A" in reasons["TCGA-00-0001-01B"]
    assert "sample type 11" in reasons["TCGA-00-0001-11A"]


def test_ids_that_are_no_barcodes_use_the_sample_type(tmp_path):
    folder = gdc_folder(tmp_path, GENES, {"C3L-00001-01": [1, 2, 3], "C3L-00001-02": [4, 5, 6]})
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
    _, expression = read(open_expression(tmp_path, tmp_path / "sheet.tsv"))
    np.testing.assert_allclose(expression.values, np.log2([[1.5, 4]]), rtol=1e-6)


@pytest.mark.parametrize("name", ["m.tsv", "m.tsv.gz"])
def test_matrix_as_given(tmp_path, name):
    samples = "TCGA-00-0002-01A\tTCGA-00-0001-11A\tTCGA-00-0001-01A-11R-1-07"
    text = f"Ensembl_ID\t{samples}\n{GENES[0]}\t1.5\t9\t-9.97\n{GENES[1]}\t2\t9\t0\n"
    write_text(tmp_path / name, text)
    chosen, expression = read(open_expression(tmp_path / name))
    assert list(chosen) == ["TCGA-00-0001", "TCGA-00-0002"]
    np.testing.assert_allclose(expression.values, [[-9.97, 0], [1.5, 2]], rtol=1e-6)
    assert expression.transform == "as given"


def test_matrix_transform_on_request(tmp_path):
    write_text(tmp_path / "m.tsv", f"id\t0007\n{GENES[0]}\t3\n")
    chosen, expression = read(open_expression(tmp_path / "m.tsv"), "log2(x+1)")
    assert list(chosen) == ["0007"]
    np.testing.assert_allclose(expression.values, [[2]])


def test_provenance_of_gdc_files(tmp_path):
    folder = gdc_folder(tmp_path, GENES, {"TCGA-00-0001-01A": [1, 2, 3]})
    _, expression = read(open_expression(folder))
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
        write_star(tmp_path / "u" / name, [1, 2, 3])
        rows.append(f"u\t{name}\tC3L-{kind}\tC3L-{kind}-x\t{tissue}\t{descriptor}")
    write_text(tmp_path / "gdc_sample_sheet.tsv", "\n".join(rows) + "\n")
    source = open_expression(tmp_path, sample_types=(asked,))
    chosen, dropped = choose_samples(source.samples)
    expected = {f"C3L-{kind}" for kind, (_, _, code) in NEW_ROWS.items() if code == asked}
    assert set(chosen) == expected
    assert len(dropped) == len(NEW_ROWS) - len(expected)
    assert source.read(chosen.values()).values.shape == (len(expected), 3)


def test_barcodes_outrank_the_words_of_a_sheet(tmp_path):
    folder = gdc_folder(tmp_path, GENES, {"TCGA-00-0001-06A": [1, 2, 3]})
    assert not choose_samples(open_expression(folder).samples)[0]
    chosen, _ = choose_samples(open_expression(folder, sample_types=("06",)).samples)
    assert list(chosen) == ["TCGA-00-0001"]


def test_a_sheet_need_not_end_its_last_line(tmp_path):
    folder = gdc_folder(tmp_path, GENES, {"TCGA-00-0001-01A": [1, 2, 3]})
    sheet = folder / "gdc_sample_sheet.tsv"
    sheet.write_bytes(sheet.read_bytes().rstrip())
    assert len(open_expression(folder).samples) == 1
    sheet.write_bytes(sheet.read_bytes()[:-20])
    assert kinds_of(lambda: open_expression(folder)) == ["row-length"]


def test_files_of_several_cases_are_a_fault(tmp_path):
    folder = gdc_folder(tmp_path, GENES, {"TCGA-00-0001-01A": [1, 2, 3]})
    sheet = folder / "gdc_sample_sheet.tsv"
    text = sheet.read_text("utf-8").replace("TCGA-00-0001\tTCGA-00-0001-01A", "A, B\tA1, B1")
    sheet.write_text(text, "utf-8")
    assert kinds_of(lambda: open_expression(folder)) == ["sample-without-id"]


def test_many_files_in_worker_processes(tmp_path):
    fpkm = {f"TCGA-00-{n:04d}-01A": [n, n + 0.5, 2 * n] for n in range(70)}
    folder = gdc_folder(tmp_path, GENES, fpkm)
    damaged = next((folder / "u50").iterdir())
    _, one = read(open_expression(folder, workers=1), "as given")
    np.testing.assert_array_equal(one.values, np.array([*fpkm.values()], np.float32))
    _, two = read(open_expression(folder, workers=2), "as given")
    np.testing.assert_array_equal(two.values, one.values)
    write_star(damaged, [1, 2, 3], GENES[::-1])
    assert kinds_of(lambda: read(open_expression(folder, workers=2))) == ["gene-list"]


def test_a_first_file_of_another_length_costs_no_values(tmp_path):
    folder = gdc_folder(tmp_path, GENES, {f"TCGA-00-000{n}-01A": [n, 2, 3] for n in range(3)})
    write_star(next((folder / "u0").iterdir()), [1, 2], GENES[:2])
    source = open_expression(folder)
    loaded = source.load(list(source.samples))
    np.testing.assert_array_equal(loaded.value.values, [[0, 0, 0], [1, 2, 3], [2, 2, 3]])
    assert [fault.kind for fault in loaded.faults] == ["gene-list"]


def test_no_readable_file(tmp_path):
    folder = gdc_folder(tmp_path, GENES, {f"TCGA-00-000{n}-01A": [1, 2, 3] for n in range(2)})
    for name in ("u0", "u1"):
        next((folder / name).iterdir()).write_bytes(b"")
    assert kinds_of(lambda: read(open_expression(folder))) == ["unreadable-file"] * 2


def test_real_gdc_file(tmp_path, real_data):
    path = real_data / "gdc" / "ncigdc_test_set_1.final.tsv.gz"
    star_name = tmp_path / "x.rna_seq.augmented_star_gene_counts.tsv.gz"
    shutil.copy(path, star_name)
    genes, file = read_gene_rows(star_name), read_gdc_file(star_name, "fpkm_unstranded")
    assert len(genes) == len(file.values) == 96
    assert genes[0]["gene_id"] == "ENSG00000000003.15"
    assert file.values[0] == pytest.approx(15420.955417694371)


def second_file(folder: Path) -> Path:
    return next((folder / "u1").iterdir())


BREAKS = {
    "other-genes": (lambda f: write_star(f, [1, 2, 3], (*GENES[:2], "ENSG9.1")), "gene-list"),
    "other-order": (lambda f: write_star(f, [1, 2, 3], GENES[::-1]), "gene-list"),
    "fewer-genes": (lambda f: write_star(f, [1, 2], GENES[:2]), "gene-list"),
    "negative": (lambda f: write_star(f, [1, -2, 3]), "negative-expression"),
    "nan": (lambda f: write_star(f, [1, float("nan"), 3]), "expression-not-finite"),
    "infinite": (lambda f: write_star(f, [1, float("inf"), 3]), "expression-not-finite"),
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
    "utf-16": (lambda f: f.write_text(f.read_text("utf-8"), "utf-16-le"), "encoding"),
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
    folder = gdc_folder(tmp_path, GENES, {f"TCGA-00-000{n}-01A": fpkm for n in range(4)})
    damage, kind = BREAKS[case]
    name = second_file(folder).name
    damage(second_file(folder))
    with pytest.raises(FaultError) as error:
        read(open_expression(folder))
    assert [fault.kind for fault in error.value.faults] == [kind]
    assert name in error.value.faults[0].where


def test_a_bad_first_file_does_not_blame_the_others(tmp_path):
    folder = gdc_folder(tmp_path, GENES, {f"TCGA-00-000{n}-01A": [1, 2, 3] for n in range(4)})
    first = next((folder / "u0").iterdir())
    write_star(first, [1, 2], GENES[:2])
    with pytest.raises(FaultError) as error:
        read(open_expression(folder))
    assert [(fault.kind, fault.where) for fault in error.value.faults] == [
        ("gene-list", str(first))
    ]


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
    assert kinds_of(lambda: open_expression(tmp_path)) == [kind]


@pytest.mark.parametrize("name", ["../secret.tsv", "/etc/passwd", "a/../../secret.tsv"])
def test_a_sheet_names_no_file_outside_its_folder(tmp_path, name):
    row = f"u\t{name}.rna_seq.augmented_star_gene_counts.tsv\tGene Expression\tA\tA1\tPrimary Tumor"
    folder = tmp_path / "gdc"
    write_text(folder / "gdc_sample_sheet.tsv", f"{SHEET}\n{row}\n".replace("u\t/", "/\t"))
    with pytest.raises(FaultError, match=r"gdc_sample_sheet\.tsv.*outside-file"):
        open_expression(folder)


def test_a_sheet_that_a_spreadsheet_saved_again(tmp_path):
    folder = gdc_folder(tmp_path, ("ENSG00000000003.15",), {"TCGA-00-0001-01A": [1.0]})
    sheet = folder / "gdc_sample_sheet.tsv"
    text = sheet.read_text("utf-8")
    for content in (text.replace("\t", ",").encode(), text.encode("utf-16")):
        sheet.write_bytes(content)
        source = open_expression(folder)
        assert [sample.barcode for sample in source.samples] == ["TCGA-00-0001-01A"]
