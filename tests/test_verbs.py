"""The notebook's verbs: one call does what a command does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders.prepare_inputs import CASES, GENES, Inputs

from gimp_fast import prepare
from gimp_fast.data.prepare.options import PrepareOptions, RnaOptions
from gimp_fast.errors import FaultError, GimpError
from gimp_fast.verbs import check_cohort, prepare_cohort


@pytest.fixture
def inputs(tmp_path) -> Inputs:
    return Inputs(tmp_path / "in")


def test_a_cohort_in_one_call_is_that_of_the_command(inputs):
    cohort = prepare_cohort(
        slides=str(inputs.slides),
        rna=[inputs.rna],
        labels=inputs.labels,
        out=str(inputs.folder / "verb"),
        transform="as-given",
        name="mine",
    )
    assert prepare.main(inputs.argv("--name", "mine")) == 0
    assert (cohort.name, cohort.case_ids) == ("mine", tuple(sorted(CASES)))
    written = {
        folder: {file.name: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        for folder in (cohort.path, inputs.out)
    }
    assert written[cohort.path] == written[inputs.out]


def test_fields_replace_those_of_options(inputs):
    rna = RnaOptions(paths=(inputs.rna,))
    options = PrepareOptions(labels=inputs.labels, slides=(inputs.slides,), rna=rna)
    assert check_cohort(options).need_contents().pack is None
    contents = check_cohort(options, pack="fp32", genes=_list_of_genes(inputs)).need_contents()
    assert contents.pack == "fp32"
    assert [row["gene_id"] for row in contents.genes] == [GENES[2]]


def _list_of_genes(inputs: Inputs) -> Path:
    file = inputs.folder / "genes.txt"
    file.write_text(GENES[2], encoding="utf-8")
    return file


def test_genes_of_a_cohort(inputs):
    given = {"slides": inputs.slides, "rna": inputs.rna, "labels": inputs.labels}
    first = prepare_cohort(out=inputs.out, genes=_list_of_genes(inputs), **given)
    second = prepare_cohort(out=inputs.folder / "second", genes_of=first.path, **given)
    assert second.gene_ids == first.gene_ids == (GENES[2],)
    np.testing.assert_array_equal(second.expression(CASES), first.expression(CASES))


def test_all_faults_come_together_and_nothing_is_written(inputs):
    inputs.rna.unlink()
    next(inputs.slides.iterdir()).write_bytes(b"x")
    given = {"slides": inputs.slides, "rna": inputs.rna, "labels": inputs.labels}
    with pytest.raises(FaultError) as error:
        prepare_cohort(out=inputs.out, genes_of=inputs.folder / "nowhere", **given)
    kinds = sorted(fault.kind for fault in error.value.faults)
    assert kinds == ["gene-reference", "missing-file", "unreadable-file"]
    assert not inputs.out.exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": "l.csv"}, "found no `out`"),
        ({"out": "x", "lables": "l.csv"}, "found lables; expected some of"),
        ({"out": "x", "order": "spiral"}, "order: found 'spiral'; expected one of file, row"),
    ],
)
def test_impossible_requests(fields, message):
    with pytest.raises(GimpError, match=message):
        prepare_cohort(**fields)
