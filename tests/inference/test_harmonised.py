"""A model that harmonises genes gives the same answers in other units, and says which it takes."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from builders.rna_files import gdc_folder
from builders.runs import TINY, train_run

import gimp_fast
from gimp_fast import predict, prepare
from gimp_fast.data import open_cohort
from gimp_fast.errors import GimpError
from gimp_fast.inference.ensemble import export_ensemble
from gimp_fast.inference.export import export_model
from gimp_fast.inference.predictions import predict_cohort
from gimp_fast.runs.checkpoint import load_checkpoint, save_checkpoint
from gimp_fast.runs.gene_list import read_gene_reference

CASES = [f"TCGA-{site}-{n:04d}" for n, site in enumerate(["AA", "BB", "CC"] * 10)]
GENES = [f"ENSG{n:011d}" for n in range(23)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """GDC's files of 30 patients, a cohort of their FPKM, and a model for each harmonisation."""
    folder, rng = tmp_path_factory.mktemp("gdc"), np.random.default_rng(0)
    fpkm = rng.lognormal(rng.normal(1, 1, len(GENES)), 1, (len(CASES), len(GENES))).round(4)
    samples = dict(zip((f"{case}-01A" for case in CASES), fpkm, strict=True))
    gdc_folder(folder / "rna", GENES, samples)
    rows = [f"{case},,{'XY'[n // 3 % 2]}" for n, case in enumerate(CASES)]
    text = "\n".join(["case_id,slide_id,label", *rows]) + "\n"
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    argv = ["--labels", folder / "labels.csv", "--rna", folder / "rna"]
    assert run(*argv, "--out", folder / "cohort") == 0
    for name in ("none", "rank", "quantile"):
        settings = ("method=snn", "modalities=rna", f"gene_harmonise={name}")
        tiny = [x for x in TINY if not x.startswith(("model.", "finetune.freeze"))]
        train_run(folder / name, folder / "cohort", *tiny, *settings)
    return folder


def run(*argv) -> int:
    return prepare.main([*map(str, argv), "--allow-missing-modality"])


def new_patients(folder, out, model, *options) -> int:
    """Prepare the same patients again, as new ones of a model."""
    cases = ["--cases", folder / "labels.csv", "--rna", folder / "rna"]
    return run(*cases, "--genes-of", folder / model, "--out", out, *options)


@pytest.mark.parametrize("model", ["rank", "quantile"])
@pytest.mark.parametrize(
    "options",
    [("--rna-column", "tpm_unstranded"), ("--rna-column", "fpkm_uq_unstranded"),
     ("--transform", "as-given"), ("--rna-column", "tpm_unstranded", "--transform", "log1p")],
    ids=lambda options: "-".join(options[1::2]),
)  # fmt: skip
def test_another_unit_gives_the_same_answers(folder, tmp_path, capsys, model, options):
    trained, cohort = gimp_fast.load(folder / model), open_cohort(folder / "cohort")
    expected = predict_cohort([trained], cohort, CASES)
    assert expected.harmonised == ()
    assert new_patients(folder, tmp_path / "new", model, *options) == 0
    assert "and reads the order of genes alone: no difference" in capsys.readouterr().out
    found = predict_cohort([trained], open_cohort(tmp_path / "new"), CASES)
    np.testing.assert_allclose(found.probabilities(), expected.probabilities(), atol=1e-5)
    assert len(found.harmonised) == len(options) // 2
    assert set(";".join(found.table["warnings"]).split(";")) <= {"training-patient", ""}


@pytest.mark.parametrize("model", ["none", "rank"])
def test_counts_are_refused_and_without_harmonising_every_other_unit(
    folder, tmp_path, capsys, model
):
    assert new_patients(folder, tmp_path / "new", model, "--rna-column", "unstranded") == 2
    text = capsys.readouterr().err
    assert "column 'unstranded' asked for" in text
    assert ("a unit that orders a patient's genes alike" in text) == (model == "rank")
    other = new_patients(folder, tmp_path / "tpm", model, "--rna-column", "tpm_unstranded")
    assert other == (2 if model == "none" else 0)


def test_predict_warns_of_counts_and_without_harmonising_of_every_other_unit(folder):
    cohort = open_cohort(folder / "cohort")
    ranked, plain = gimp_fast.load(folder / "rank"), gimp_fast.load(folder / "none")
    for unit, codes in (("tpm_unstranded", [set(), {"expression-unit"}]),
                        ("unstranded", [{"expression-unit"}] * 2)):  # fmt: skip
        cohort.expression_facts["column"] = unit
        for trained, expected in zip((ranked, plain), codes, strict=True):
            found = predict_cohort([trained], cohort, CASES[:5])
            shown = set(";".join(found.table["warnings"]).split(";")) - {"training-patient", ""}
            assert shown == expected
            assert bool(found.harmonised) == (not expected)


def test_the_command_says_so_and_keeps_it(folder, tmp_path, capsys):
    assert new_patients(folder, tmp_path / "n", "rank", "--rna-column", "tpm_unstranded") == 0
    argv = ["--run", folder / "rank", "--data", tmp_path / "n", "--out", tmp_path / "p.csv"]
    assert predict.main(list(map(str, argv))) == 0
    said = "tpm_unstranded for fpkm_unstranded, which order a patient's genes alike"
    assert f"harmonised: {folder / 'rank'}: {said}" in capsys.readouterr().out
    facts = json.loads((tmp_path / "p.warnings.json").read_text(encoding="utf-8"))
    assert facts["harmonised"] == [f"{folder / 'rank'}: {said}"]


@pytest.mark.parametrize("model", ["rank", "quantile"])
def test_an_export_harmonises_too(folder, tmp_path, model):
    run, cohort = gimp_fast.load(folder / model), open_cohort(folder / "cohort")
    export_model(run, tmp_path / "model")
    exported = gimp_fast.load(tmp_path / "model")
    first, second = (predict_cohort([one], cohort).table for one in (run, exported))
    assert first.equals(second)
    assert exported.harmonises
    assert f"| harmonised | by {model}" in (tmp_path / "model" / "README.md").read_text("utf-8")
    assert read_gene_reference(tmp_path / "model").harmonised


def test_an_ensemble_takes_other_units_if_all_its_members_do(folder, tmp_path):
    models = {name: gimp_fast.load(folder / name) for name in ("none", "rank", "quantile")}
    export_ensemble([models["rank"], models["quantile"]], tmp_path / "both")
    export_ensemble([models["rank"], models["none"]], tmp_path / "one")
    assert read_gene_reference(tmp_path / "both").harmonised
    assert not read_gene_reference(tmp_path / "one").harmonised


@pytest.mark.parametrize("model", ["rank", "quantile"])
def test_arrays_and_tables_with_genes_missing(folder, model):
    trained = gimp_fast.load(folder / model)
    values = open_cohort(folder / "cohort").expression(CASES)
    gaps = values.copy()
    gaps[:, [2, 11]] = np.nan
    found = trained.predict(genes=gaps)
    shuffled = pd.DataFrame(gaps, columns=GENES)[GENES[::-1]]
    np.testing.assert_array_equal(trained.predict(genes=shuffled), found)
    np.testing.assert_array_equal(trained.predict(genes=np.exp2(gaps)), found)
    assert (trained.scaler(gaps)[:, [2, 11]] == 0).all()


def test_damaged_quantiles_are_refused(folder, tmp_path):
    export_model(gimp_fast.load(folder / "quantile"), tmp_path / "model")
    tensors, facts = load_checkpoint(tmp_path / "model" / "model.safetensors")
    for damage in (lambda t: t.pop("scaler.quantiles"), lambda t: t["scaler.quantiles"].neg_()):
        damaged = {name: tensor.clone() for name, tensor in tensors.items()}
        damage(damaged)
        with pytest.raises(GimpError, match=r"expected scaler.quantiles of 23 genes, ascending"):
            gimp_fast.inference.model.TrainedModel(damaged, facts, tmp_path)
    with pytest.raises(GimpError, match="gene_harmonise"):
        gimp_fast.inference.model.TrainedModel(
            tensors, facts | {"gene_harmonise": "median"}, tmp_path
        )
    save_checkpoint(tmp_path / "again.safetensors", tensors, facts)
    assert read_gene_reference(tmp_path / "again.safetensors").harmonised
