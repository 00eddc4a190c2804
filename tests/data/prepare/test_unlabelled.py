"""Cohorts for prediction: patients whose labels are not known, or only for some."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gimp_fast import prepare
from gimp_fast.data import open_cohort
from gimp_fast.data.tables.labels import read_cases
from gimp_fast.errors import GimpError
from gimp_fast.training import load_config, train

SLIDES = ["TCGA-AA-0001-01Z-DX1", "TCGA-AA-0001-01Z-DX2", "TCGA-BB-0002-01Z", "slide-7"]
PATIENTS = ("TCGA-AA-0001", "TCGA-BB-0002", "slide-7")


def write_slides(folder: Path) -> Path:
    folder.mkdir()
    for n, name in enumerate(SLIDES):
        with h5py.File(folder / f"{name}.h5", "w") as h5:
            h5["features"] = np.full((n + 2, 4), n, np.float32)
    return folder


def write_rna(file: Path, cases: list[str]) -> Path:
    lines = ["\t".join(["Ensembl_ID", *cases])]
    lines += [f"ENSG0000000000{g}.1\t" + "\t".join(["1.5"] * len(cases)) for g in range(1, 6)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@pytest.fixture
def slides(tmp_path) -> Path:
    return write_slides(tmp_path / "slides")


def run(*argv: object) -> int:
    return prepare.main([str(arg) for arg in argv])


def test_slides_alone_by_barcode(slides, tmp_path, capsys):
    out = tmp_path / "new"
    assert run("--slides", slides, "--no-labels", "--allow-missing-modality", "--out", out) == 0
    assert "3 (0 with RNA): 3 of unknown label" in capsys.readouterr().out
    cohort = open_cohort(out)
    assert cohort.case_ids == PATIENTS
    assert cohort.classes == cohort.split_names == ()
    assert cohort.bag(PATIENTS[0]).slide_ids == tuple(SLIDES[:2])
    assert not cohort.has_label("slide-7")
    with pytest.raises(GimpError, match="prepared for prediction"):
        cohort.label("slide-7")
    with pytest.raises(GimpError, match="no patient 'nobody'"):
        cohort.has_label("nobody")
    with pytest.raises(GimpError, match="has no split; it was prepared for prediction"):
        train(load_config(), cohort, tmp_path / "run")


def test_genes_of_implies_it_and_rna_of_others_is_left_out(slides, tmp_path):
    rna = write_rna(tmp_path / "rna.tsv", ["TCGA-AA-0001-01A", "TCGA-BB-0002-01A", "slide-7", "Z"])
    reference, out = tmp_path / "reference", tmp_path / "new"
    argv = ["--slides", slides, "--rna", rna]
    assert run(*argv, "--no-labels", "--out", reference) == 0
    assert run(*argv, "--genes-of", reference, "--out", out) == 0
    assert open_cohort(out).case_ids == PATIENTS
    dropped = (out / "dropped.csv").read_text(encoding="utf-8")
    assert "rna-sample,Z,Z,patient not listed" in dropped


def test_patients_of_rna_alone_where_a_modality_may_be_missing(slides, tmp_path):
    rna = write_rna(tmp_path / "rna.tsv", ["TCGA-AA-0001-01A", "TCGA-ZZ-0009-01A"])
    out = tmp_path / "new"
    argv = ["--slides", slides, "--rna", rna, "--no-labels", "--out", out]
    assert run(*argv) == 2  # of two patients there is no RNA
    assert run(*argv, "--allow-missing-modality") == 0
    cohort = open_cohort(out)
    assert cohort.case_ids == ("TCGA-AA-0001", "TCGA-BB-0002", "TCGA-ZZ-0009", "slide-7")
    assert cohort.has_expression("TCGA-ZZ-0009")
    assert not cohort.has_slides("TCGA-ZZ-0009")


def test_a_table_of_cases_names_patients_and_some_labels(slides, tmp_path):
    table, out = tmp_path / "cases.csv", tmp_path / "new"
    text = "case_id,slide_id,label\nP1,slide-7.svs,LUAD\nP2,TCGA-AA-0001-01Z-DX1,\n"
    table.write_text(text + "P2,TCGA-BB-0002-01Z,NA\n", encoding="utf-8")
    argv = ["--slides", slides, "--cases", table, "--allow-missing-modality", "--out", out]
    assert run(*argv) == 0
    cohort = open_cohort(out)
    assert cohort.case_ids == ("P1", "P2")
    assert cohort.classes == ("LUAD",)
    assert [cohort.has_label(case) for case in cohort.case_ids] == [True, False]
    assert cohort.bag("P2").num_patches == 6
    assert "not listed" in (out / "dropped.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--no-labels", "--labels", "x.csv"], "either --labels"),
        (["--no-labels", "--splits", "x.csv"], "need --labels"),
        (["--cases", "nowhere.csv"], "nowhere.csv"),
        ([], "give --labels"),
    ],
)
def test_impossible_requests(slides, tmp_path, capsys, argv, message):
    argv = ["--slides", slides, "--allow-missing-modality", "--out", tmp_path / "new", *argv]
    assert run(*argv) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


CELLS = st.text(st.sampled_from('ab1,;\t" \n\x00é'), max_size=4)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=6), st.sampled_from(",;\t"))
def test_any_table_of_cases_is_read_or_refused_with_its_faults(tmp_path_factory, rows, separator):
    file = tmp_path_factory.mktemp("cases") / "cases.csv"
    lines = [separator.join(row) for row in [("case_id", "slide_id", "label"), *rows]]
    file.write_text("\n".join(lines), encoding="utf-8")
    read = read_cases(file)
    found = read.value
    assert found or read.faults
    assert all(row.case_id and (row.case_id + row.slide_id).isprintable() for row in found)
    labels = {}
    assert all(labels.setdefault(row.case_id, row.label) == row.label for row in found)
