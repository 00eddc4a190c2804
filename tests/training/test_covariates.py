"""Clinical covariates: scaled on training patients, read by every model."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from builders.runs import METHODS, QUICK, SMALL, train_run

import gimp_fast
from gimp_fast import models
from gimp_fast.data import open_cohort
from gimp_fast.data.cohort_covariates import CohortCovariate
from gimp_fast.errors import GimpError
from gimp_fast.inference.predictions import predict_cohort
from gimp_fast.models import PatientInputs
from gimp_fast.runs.checkpoint import load_checkpoint
from gimp_fast.runs.records import open_run
from gimp_fast.training import load_config
from gimp_fast.training.covariate_scaling import CovariateScaler
from gimp_fast.training.stage_settings import FinetuneSettings
from gimp_fast.training.steps import adamw, set_rate

BOTH = "covariates=[age,stage]"


def settings(method, modalities):
    fields = models.model_class(method).settings_class.model_fields
    sizes = [f"model.{name}={value}" for name, value in SMALL.items() if name in fields]
    return [*QUICK, *sizes, f"method={method}", f"modalities={modalities}"]


@pytest.fixture(scope="module")
def trained(cohort_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("covariates") / "run"
    return train_run(out, cohort_folder, *settings("gimp", "both"), BOTH, "target=os")


@pytest.fixture
def covariates():
    return {
        "age": CohortCovariate("age", "numeric", (), {"a": 50.0, "b": 70.0, "d": 90.0}),
        "stage": CohortCovariate("stage", "categorical", ("I", "II"), {"a": "I", "b": "II"}),
    }


@pytest.fixture
def scaler():
    described = (("age", "numeric", ()), ("stage", "categorical", ("I", "II")))
    return CovariateScaler(described, np.array([60.0, 0.0]), np.array([10.0, 1.0]))


def test_columns_are_z_scores_levels_and_what_is_missing(scaler, covariates):
    found = scaler(covariates, ["a", "b", "c", "d"])
    assert found.dtype == np.float32
    assert found.tolist() == [
        [-1, 0, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [0, 1, 0, 0, 1],
        [3, 0, 0, 0, 1],
    ]
    assert scaler.width == 5
    assert scaler({}, ["a"]).tolist() == [[0, 1, 0, 0, 1]]
    assert scaler(covariates, []).shape == (0, 5)


def test_what_is_missing_or_unknown_is_named(scaler, covariates):
    other = covariates | {
        "stage": CohortCovariate("stage", "categorical", ("I", "IV"), {"a": "I", "b": "IV"})
    }
    assert scaler.missing(other, "a") == ()
    assert scaler.missing(other, "b") == ("stage",)
    assert scaler.missing(other, "c") == ("age", "stage")
    assert scaler.missing({}, "a") == ("age", "stage")


def test_they_are_fitted_on_training_patients_alone(cohort):
    training = cohort.split("split_0")["train"]
    scaler = CovariateScaler.fit(cohort, ["age", "stage"], training)
    ages = cohort.covariates["age"].values
    known = [ages[case] for case in training if case in ages]
    assert scaler.mean[0] == pytest.approx(np.mean(known))
    assert scaler.std[0] == pytest.approx(np.std(known))
    found = scaler(cohort.covariates, training)
    assert found[:, 0].mean() == pytest.approx(0, abs=1e-6)
    again = CovariateScaler.of_checkpoint(scaler.facts(), scaler.tensors())
    np.testing.assert_array_equal(again(cohort.covariates, training), found)


def test_a_name_that_the_cohort_lacks_is_refused(cohort_folder, tmp_path):
    with pytest.raises(GimpError, match=r"found 'agee'; the cohort .* has age, stage; .*'age'"):
        train_run(tmp_path / "run", cohort_folder, *settings("snn", "rna"), "covariates=[agee]")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("method", "modalities"), METHODS, ids="-".join)
def test_every_model_reads_them(method, modalities, cohort_folder, tmp_path):
    out = train_run(tmp_path / "run", cohort_folder, *settings(method, modalities), BOTH)
    model, cohort = gimp_fast.load(out), open_cohort(cohort_folder)
    recorded = open_run(out).predictions.of("test")
    cases = recorded.case_id.tolist()
    found = predict_cohort([model], cohort, cases)
    np.testing.assert_allclose(found.probabilities(), recorded.probabilities, atol=1e-6)
    reader = model.reader_of(cohort, model.columns_in(cohort))
    inputs = reader.inputs(cases[:2])
    assert inputs.covariates.shape == (2, model.covariates.width)
    moved = model.outputs(inputs)
    changed = torch.zeros_like(inputs.covariates)
    other = model.outputs(type(inputs)(*(getattr(inputs, name) for name in FIELDS[:-1]), changed))
    assert not np.array_equal(moved.predictions, other.predictions)


@pytest.mark.parametrize(
    ("method", "modalities"),
    [("gimp", "both"), ("pathomic_fusion", "both"), ("clam_mb", "slide"), ("dsmil", "slide")],
    ids="-".join,
)
def test_a_hidden_layer_is_trained_stored_and_loaded(method, modalities, cohort_folder, tmp_path):
    from gimp_fast.inference.export import export_model

    asked = [*settings(method, modalities), BOTH, "model.covariate_hidden=6"]
    out, cohort = train_run(tmp_path / "run", cohort_folder, *asked), open_cohort(cohort_folder)
    model = gimp_fast.load(out)
    first, _, dropout, last = model.model.covariate_head
    assert (first.in_features, first.out_features) == (model.covariates.width, 6)
    assert (last.out_features, dropout.p) == (2, 0.25)
    as_drawn = _as_drawn(method, model.model.config)
    assert not torch.equal(first.weight, as_drawn[0].weight)
    assert not torch.equal(last.weight, as_drawn[-1].weight)
    export_model(model, tmp_path / "model")
    recorded = open_run(out).predictions.of("test")
    for one in (model, gimp_fast.load(tmp_path / "model")):
        found = predict_cohort([one], cohort, recorded.case_id.tolist())
        np.testing.assert_allclose(found.probabilities(), recorded.probabilities, atol=1e-6)
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "| covariates | age, stage; through a hidden layer of 6 |" in card


def _as_drawn(method, config):
    torch.manual_seed(0)
    return models.build(method, config).covariate_head


def test_without_a_hidden_layer_configurations_are_as_before(trained):
    for method in models.available():
        config = load_config(overrides=[f"method={method}"])
        dumped = config.model_dump(mode="json")["model"]
        assert not [name for name in dumped if name.startswith("covariate")]
        assert load_config(fields={"method": method, "model": dumped}) == config
    _, facts = load_checkpoint(trained / "checkpoints" / "finetune.safetensors")
    assert not [name for name in facts["model"] if name.startswith("covariate")]
    hidden = load_config(overrides=["covariates=[age]", "model.covariate_hidden=3"])
    dumped = hidden.model_dump(mode="json")["model"]
    assert (dumped["covariate_hidden"], dumped["covariate_dropout"]) == (3, 0.25)


def test_a_hidden_layer_of_nothing_is_refused():
    with pytest.raises(GimpError, match="expected covariates, one name or more"):
        load_config(overrides=["model.covariate_hidden=3"])


def test_a_run_reads_a_single_number(cohort_folder, tmp_path):
    asked = [*settings("snn", "rna"), "covariates=[age]", "target=burden"]
    model = gimp_fast.load(train_run(tmp_path / "run", cohort_folder, *asked))
    assert model.covariates.width == 2


FIELDS = ("patches", "bags", "genes", "slide", "rna", "covariates")


@pytest.mark.parametrize("hidden", [0, 7])
def test_the_gradient_reaches_them_and_each_patient_stands_alone(hidden):
    sizes = {"num_outputs": 3, "feature_dim": 4, "num_genes": 20, "num_covariates": 5}
    sizes["covariate_hidden"] = hidden
    torch.manual_seed(0)
    model = models.build("mean_pool", sizes).double().eval()
    rng = torch.Generator().manual_seed(0)
    *_, last = model.covariate_head.modules()
    assert not last.weight.any()  # it begins at nothing
    torch.nn.init.normal_(last.weight, generator=rng)
    patches = torch.randn(7, 4, generator=rng, dtype=torch.float64)
    rows = torch.randn(2, 5, generator=rng, dtype=torch.float64, requires_grad=True)
    bounds = torch.tensor([0, 3, 7])
    together = model(patches, bounds, covariates=rows)
    alone = [model(patches[:3], covariates=rows[:1]), model(patches[3:], covariates=rows[1:])]
    assert torch.equal(together, torch.cat(alone))
    together.sum().backward()
    apart = rows.detach().clone().requires_grad_()
    model.covariate_head(apart).sum().backward()
    assert apart.grad.any()
    torch.testing.assert_close(rows.grad, apart.grad)


@pytest.mark.parametrize("hidden", [0, 7])
def test_they_learn_at_a_rate_of_their_own(hidden):
    sizes = {"num_outputs": 3, "feature_dim": 4, "num_covariates": 5, "covariate_hidden": hidden}
    model = models.build("mean_pool", sizes)
    settings = FinetuneSettings(lr=1e-4, covariate_lr=1e-2, weight_decay=0.1)
    stage = SimpleNamespace(
        settings=settings,
        context=SimpleNamespace(model=model),
        parameters=lambda: list(model.parameters()),
    )
    optimizer = adamw(stage)
    set_rate(optimizer, 5e-5)  # in the middle of the schedule
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    of_covariates = {id(p) for p in model.covariate_head.parameters()}
    for place, rate in rates.items():
        assert rate == pytest.approx(5e-3 if place in of_covariates else 5e-5)
    decayed = [p for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]]
    assert {p.dim() for p in decayed} == {2}


def test_they_learn_where_the_network_does_not(cohort_folder, tmp_path):
    asked = [*settings("snn", "rna"), BOTH, "target=burden", "finetune.epochs=10"]
    model = gimp_fast.load(train_run(tmp_path / "run", cohort_folder, *asked, "finetune.lr=1e-9"))
    weight = model.model.covariate_head.weight.detach()
    assert weight.abs().max() > 0.05


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, r"covariates must be \(1, 5\), .* got none"),
        (torch.zeros(1, 4), r"got \(1, 4\)"),
        (torch.zeros(2, 5), "found covariates of 2 patients; expected 1"),
    ],
    ids=["none", "width", "patients"],
)
def test_what_does_not_fit_is_refused(rows, message):
    sizes = {"num_outputs": 3, "feature_dim": 4, "num_covariates": 5}
    model = models.build("mean_pool", sizes)
    with pytest.raises(ValueError, match=message):
        model(PatientInputs.of(torch.zeros(3, 4), covariates=rows))


def test_a_table_predicts_as_the_cohort_does(trained, cohort_folder):
    model, cohort = gimp_fast.load(trained), open_cohort(cohort_folder)
    cases = list(cohort.split("split_0")["test"])
    expected = predict_cohort([model], cohort, cases).table[list(model.columns)].to_numpy()
    patches = [cohort.bag(case).read() for case in cases]
    genes = cohort.expression(cases)[:, model.columns_in(cohort)]
    table = pd.DataFrame(
        {name: [cohort.covariates[name].values.get(case) for case in cases]
         for name in ("stage", "age")}
    )  # fmt: skip
    np.testing.assert_allclose(model.predict(patches, genes, table), expected, rtol=1e-5)
    assert not np.allclose(model.predict(patches, genes), expected, rtol=1e-5)
    with pytest.raises(GimpError, match="found 1 rows; expected"):
        model.predict(patches, genes, table[:1])


def test_an_export_keeps_them_and_missing_ones_are_warned_of(trained, cohort_folder, tmp_path):
    from gimp_fast.inference.export import export_model

    model, cohort = gimp_fast.load(trained), open_cohort(cohort_folder)
    export_model(model, tmp_path / "model")
    again = gimp_fast.load(tmp_path / "model")
    tables = [predict_cohort([one], cohort).table for one in (model, again)]
    pd.testing.assert_frame_equal(*tables)
    missing = {case for case in cohort.case_ids if case not in cohort.covariates["age"].values}
    warned = set(tables[0].loc[tables[0]["warnings"].str.contains("covariate-missing"), "case_id"])
    assert missing
    assert missing <= warned
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "| covariates | age, stage |" in card
