"""Genes chosen, grouped, or aligned to those of a cohort or a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from builders.faults import faults_of
from builders.prepare_inputs import CASES, GENES, Inputs

from gimp_fast import prepare
from gimp_fast.data import open_cohort
from gimp_fast.data.prepare.gene_reference import make_gene_reference
from gimp_fast.errors import GimpError
from gimp_fast.runs.checkpoint import load_checkpoint
from gimp_fast.training import load_config, train


def test_chosen_genes(inputs):
    genes = inputs.folder / "genes.txt"
    genes.write_text("ENSG00000000004\nENSG00000000001.5\nENSG00000009999\n", encoding="utf-8")
    assert prepare.main(inputs.argv("--genes", genes)) == 0
    cohort = open_cohort(inputs.out)
    assert cohort.gene_ids == (GENES[3], GENES[0])
    case = CASES.index(CASES[7])
    expected = inputs.matrix[[3, 0], case].astype(np.float32)
    np.testing.assert_array_equal(cohort.expression([CASES[7]])[0], expected)
    dropped = (inputs.out / "dropped_genes.csv").read_text(encoding="utf-8")
    assert all(gene in dropped for gene in (*GENES[1:3], "ENSG00000009999"))


TINY = ["model.dim=8", "model.heads=2", "model.num_landmarks=4", "model.head_hidden=8"]


TINY += ["genes.epochs=1", "pretrain.epochs=1", "pretrain.window=8", "finetune.epochs=1"]


TINY += ["bootstrap=20", "threads=1", "device=cpu"]


def signatures(inputs: Inputs) -> Path:
    file = inputs.folder / "sets.gmt"
    ids = [gene.split(".")[0] for gene in GENES]
    file.write_text(f"ONE\tx\t{ids[0]}\t{ids[3]}\nTWO\tx\t{ids[3]}\t{ids[2]}\n", encoding="utf-8")
    return file


def test_signatures_become_groups_of_the_model_and_of_its_checkpoint(inputs):
    assert prepare.main(inputs.argv("--gene-sets", signatures(inputs))) == 0
    cohort = open_cohort(inputs.out)
    assert cohort.gene_ids == (GENES[0], GENES[3], GENES[2])
    assert cohort.gene_sets == {"ONE": (0, 1), "TWO": (1, 2)}
    train(load_config(overrides=TINY), cohort, inputs.folder / "run")
    _, state = load_checkpoint(inputs.folder / "run" / "checkpoints" / "finetune.safetensors")
    assert state["model"]["gene_sets"] == [[0, 1], [1, 2]]
    assert state["cohort"]["gene_sets"] == {"ONE": [0, 1], "TWO": [1, 2]}


def test_other_genes_can_stay_beside_the_signatures(inputs, capsys):
    argv = inputs.argv("--gene-sets", signatures(inputs), "--keep-other-genes")
    assert prepare.main(argv) == 0
    cohort = open_cohort(inputs.out)
    assert cohort.gene_ids == (GENES[0], GENES[3], GENES[2], GENES[1])
    assert cohort.gene_sets == {"ONE": (0, 1), "TWO": (1, 2)}
    for groups, expected in (("sets", [[0, 1], [1, 2]]), ("consecutive", None)):
        run = inputs.folder / groups
        train(load_config(overrides=[*TINY, f"gene_groups={groups}"]), cohort, run)
        _, state = load_checkpoint(run / "checkpoints" / "finetune.safetensors")
        assert state["model"]["gene_sets"] == expected
        assert list(state["cohort"]["gene_sets"]) == ([] if expected is None else ["ONE", "TWO"])
        assert state["model"]["num_genes"] == 4
    capsys.readouterr()
    assert prepare.main(inputs.argv("--keep-other-genes", out=inputs.folder / "other")) == 2
    assert "--keep-other-genes: needs --gene-sets" in capsys.readouterr().err


def test_new_patients_are_aligned_to_the_genes_of_a_run(inputs, capsys):
    assert prepare.main(inputs.argv("--transform", "as-given")) == 0
    train(load_config(overrides=TINY), inputs.out, inputs.folder / "run")
    genes = ("ENSG00000000004.11", "ENSG00000007777.1", "ENSG00000000001.6", "ENSG00000000003.3")
    inputs.write_rna(inputs.rna, CASES, genes, inputs.matrix)
    capsys.readouterr()
    for reference in (inputs.out, inputs.folder / "run"):
        out = inputs.folder / f"new-{reference.name}"
        assert prepare.main(inputs.argv("--genes-of", reference, out=out)) == 0
        printed = capsys.readouterr().out
        assert "1 genes not measured: ENSG00000000002.1_PAR_Y" in printed
        cohort = open_cohort(out)
        assert cohort.gene_ids == GENES
        assert cohort.missing_genes == (GENES[1],)
        values = cohort.expression(CASES[:1])[0]
        expected = inputs.matrix[[2, 0, 3, 0], 0].astype(np.float32)
        assert np.isnan(values[1])
        np.testing.assert_array_equal(values[[0, 2, 3]], expected[[0, 2, 3]])
        with pytest.raises(GimpError, match="for prediction"):
            train(load_config(overrides=TINY), cohort, inputs.folder / f"not-{reference.name}")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--gene-types", "protein_coding"], "[gene-options]"),
        (["--transform", "log1p"], "[gene-options]"),
        (["--genes-of", "nowhere"], "[gene-reference]"),
    ],
)
def test_impossible_alignments(inputs, capsys, option, message):
    assert prepare.main(inputs.argv()) == 0
    argv = inputs.argv("--genes-of", inputs.out, *option, out=inputs.folder / "new")
    assert prepare.main(argv) == 2
    assert message in capsys.readouterr().err


def test_training_from_the_store_with_reading_processes_is_the_same(inputs):
    assert prepare.main(inputs.argv("--pack", "fp32")) == 0
    weights = []
    for workers in (0, 2):
        run = inputs.folder / f"run{workers}"
        metrics = train(load_config(overrides=[*TINY, f"workers={workers}"]), inputs.out, run)
        weights.append(load_checkpoint(run / "checkpoints" / "finetune.safetensors")[0])
    assert metrics["test"]["n"] > 0
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_most_variable_genes_are_chosen_on_training_patients(inputs):
    assert prepare.main(inputs.argv()) == 0
    cohort = open_cohort(inputs.out)
    overrides = [*TINY, "most_variable_genes=2", "gene_scaling=none"]
    train(load_config(overrides=overrides), cohort, inputs.folder / "run")
    tensors, state = load_checkpoint(inputs.folder / "run" / "checkpoints" / "finetune.safetensors")
    variance = cohort.expression(cohort.split("split_0")["train"]).var(0)
    chosen = sorted(np.argsort(-variance)[:2])
    assert state["cohort"]["gene_ids"] == [GENES[i] for i in chosen]
    assert tensors["scaler.mean"].tolist() == [0, 0]


@pytest.mark.parametrize("column", [["fpkm_unstranded"], {"value": "x"}, 5, "reads"])
def test_a_unit_that_does_not_exist_is_no_reference(column, tmp_path):
    facts = {"gene_ids": ["a"], "gene_names": ["A"], "gene_sets": {}, "expression_transform": "x"}
    faults = faults_of(
        lambda: make_gene_reference(tmp_path, {**facts, "expression": {"column": column}})
    )
    assert [kind for kind, _ in faults] == ["gene-reference"]
    assert "RNA column" in faults[0][1]
