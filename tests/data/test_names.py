"""Barcodes, and the names of columns that all readers share."""

from __future__ import annotations

import pytest

from gimp_fast.data.names import PATIENT_COLUMNS, patient_of, patient_of_sample, site_of
from gimp_fast.data.rna.expression import open_expression
from gimp_fast.data.tables.labels import read_cases, read_labels
from gimp_fast.data.tables.new_splits import sites_from_table
from gimp_fast.data.tables.splits import read_splits
from gimp_fast.inference.selection import read_case_list

SLIDE = "TCGA-05-4244-01Z-00-DX1.d4ff32cd"


@pytest.mark.parametrize(
    ("identifier", "patient"),
    [
        (SLIDE, "TCGA-05-4244"),
        ("TCGA-05-4244", "TCGA-05-4244"),
        ("TCGA-05-4244_2", "TCGA-05-4244"),
        ("TCGA-05-42445", "TCGA-05-42445"),
        ("2019-01-0001-x", "2019-01-0001-x"),
        ("xTCGA-05-4244-01", "xTCGA-05-4244-01"),
    ],
)
def test_only_barcodes_of_tcga_are_cut(identifier, patient):
    assert patient_of(identifier) == patient


@pytest.mark.parametrize(
    ("sample", "patient"),
    [
        ("TCGA-05-4244-01A-11R-1858-07", "TCGA-05-4244"),
        ("SYNT-00-0001-11A", "SYNT-00-0001"),
        ("TCGA-05-4244-x", "TCGA-05-4244-x"),
        ("C3L-00001-01", "C3L-00001-01"),
    ],
)
def test_samples_of_any_project_with_barcodes(sample, patient):
    assert patient_of_sample(sample) == patient


@pytest.mark.parametrize(
    ("case", "site"),
    [("TCGA-05-4244", "05"), ("TCGA-A7-A0CE-01Z", "A7"), ("SYNT-00-0001", None), ("007", None)],
)
def test_site_of_a_barcode(case, site):
    assert site_of(case) == site


@pytest.mark.parametrize("column", PATIENT_COLUMNS)
def test_every_reader_knows_every_patient_column(tmp_path, column):
    labels = tmp_path / "labels.csv"
    labels.write_text(f"{column},slide_id,label,site\nP1,s1,A,x\nP2,s2,B,y\n", encoding="utf-8")
    for read in (read_labels, read_cases):
        found = read(labels)
        assert [row.case_id for row in found.value] == ["P1", "P2"]
        assert not found.faults
    assert sites_from_table(labels, "site") == {"P1": "x", "P2": "y"}
    assert read_case_list(labels) == ["P1", "P2"]
    parts = {"P1": "train", "P2": "val", "P3": "test"}
    split = tmp_path / "split.csv"
    rows = "".join(f"{case},{part}\n" for case, part in parts.items())
    split.write_text(f"{column},split\n{rows}", encoding="utf-8")
    assert read_splits(split, {}, set(parts), {}, seed=0)["split"].parts == parts
    rna = tmp_path / "rna.csv"
    rna.write_text(f"{column},GENE\nP1,1\nP2,2\n", encoding="utf-8")
    source = open_expression(rna)
    assert (source.kind, [s.case_id for s in source.samples]) == ("table", ["P1", "P2"])
