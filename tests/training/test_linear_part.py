"""Risks that are linear in each input: fitted in closed form, added to any model of survival."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from builders.runs import METHODS, QUICK, SMALL, train_run

import gimp_fast
from gimp_fast import models
from gimp_fast.data import open_cohort
from gimp_fast.errors import GimpError
from gimp_fast.evaluation.kaplan_meier import Outcomes
from gimp_fast.evaluation.survival import harrell_c
from gimp_fast.heatmaps.attribution import attribute, describe
from gimp_fast.heatmaps.options import ATTRIBUTIONS
from gimp_fast.inference.export import export_model
from gimp_fast.inference.predictions import predict_cohort
from gimp_fast.models import PatientInputs
from gimp_fast.models.linear_part import LINEAR_INPUTS, LinearPart
from gimp_fast.runs.records import open_run
from gimp_fast.targets.survival import SurvivalSettings
from gimp_fast.training import load_config
from gimp_fast.training.fit_linear import FOLDS, WEIGHT, fit_linear_part

LINEAR = ["target=os", "survival.linear=true", "survival.loss=cox"]
WIDTHS = {"slide": 5, "amount": 1, "rna": 4, "covariates": 3}
CHANGED = {"slide": 0, "amount": 1, "rna": 2, "covariates": 3}


def settings(method, modalities):
    fields = models.model_class(method).settings_class.model_fields
    sizes = [f"model.{name}={value}" for name, value in SMALL.items() if name in fields]
    return [*QUICK, *sizes, f"method={method}", f"modalities={modalities}"]


class Readable:
    """What the fit asks of a reader: 240 patients of 24 hospitals whose risk is known."""

    feature_dim, slide_scaler = 5, None

    def __init__(self, seed=0, count=240, hospitals=24, events=0.7):
        rng = np.random.default_rng(seed)
        self.cases = [f"p{place}" for place in range(count)]
        self.places = {case: place for place, case in enumerate(self.cases)}
        self.means = rng.normal(size=(count, 5))
        self.counts = rng.integers(1, 200, count)
        self.rna = rng.normal(size=(count, 4))
        self.clinical = rng.normal(size=(count, 3)).astype(np.float32)
        self.risk = self.means[:, 0] + np.log(self.counts) / 2 + 2 * self.rna[:, 1]
        self.risk += self.clinical[:, 2]
        time = np.exp(-self.risk + 0.1 * rng.normal(size=count))
        self.known = np.column_stack([time, rng.random(count) < events])
        self.sites = [f"h{place % hospitals}" for place in range(count)]
        self.cohort = SimpleNamespace(
            has_slides=lambda case: self.places[case] % 7 != 3,
            bag=lambda case: SimpleNamespace(num_patches=int(self.counts[self.places[case]])),
            mean_patches=lambda cases: self.means[self.at(cases)],
            site=lambda case: self.sites[self.places[case]],
            covariates=None,
        )

    def at(self, cases):
        return [self.places[case] for case in cases]

    def truth(self, cases):
        return torch.from_numpy(self.known[self.at(cases)])

    def genes(self, cases):
        genes = torch.from_numpy(self.rna[self.at(cases)]).float()
        return genes, [self.places[case] % 5 != 4 for case in cases]

    def covariates(self, _, cases):
        return self.clinical[self.at(cases)]

    def inputs(self, cases):
        bags = [
            torch.from_numpy(self.means[p]).expand(int(self.counts[p]), -1).float()
            if self.cohort.has_slides(self.cases[p])
            else None
            for p in self.at(cases)
        ]
        genes, has = self.genes(cases)
        clinical = torch.from_numpy(self.covariates(None, cases))
        return PatientInputs.packed(bags, genes, has, feature_dim=5, covariates=clinical)


@pytest.fixture
def readable():
    return Readable()


def fitted(readable, validation=60):
    part = LinearPart(WIDTHS)
    split = {"train": readable.cases[validation:], "val": readable.cases[:validation]}
    crossed = fit_linear_part(part, readable, split, "split")
    return part, split, crossed


def c_index(readable, cases, risks):
    truth = readable.known[readable.at(cases)]
    return float(harrell_c(Outcomes(truth[:, 0], truth[:, 1] > 0), np.asarray(risks)))


def test_it_finds_the_order_of_the_events_of_others(readable):
    part, split, crossed = fitted(readable)
    part.refitted = False
    risks = part(readable.inputs(split["val"])).sum(1).numpy()
    assert c_index(readable, split["val"], risks) > 0.7
    assert c_index(readable, split["train"], [crossed[c].sum() for c in split["train"]]) > 0.75


def test_two_sets_and_no_trace_of_validation_patients_in_the_first(readable):
    first, split, crossed = fitted(readable)
    readable.known[: len(split["val"]), 0] = readable.known[: len(split["val"]), 0][::-1].copy()
    other, _, again = fitted(readable)
    inputs = readable.inputs(split["val"])
    for refitted in (False, True):
        first.refitted = other.refitted = refitted
        assert torch.equal(first(inputs), other(inputs)) != refitted
    assert all(np.array_equal(crossed[case], again[case]) for case in split["train"])


def test_what_training_sees_comes_from_other_hospitals(readable):
    _, split, crossed = fitted(readable)
    chosen = split["train"][3]
    here = readable.sites[readable.places[chosen]]
    same = [c for c in split["train"] if readable.sites[readable.places[c]] == here]
    before = {case: crossed[case] / np.abs(crossed[case]).sum() for case in same}
    for case in same:  # times that would turn every slope round
        readable.known[readable.places[case], 0] = np.exp(readable.risk[readable.places[case]])
    _, _, changed = fitted(readable)
    for case in same:  # but for the common scale, which all patients decide
        after = changed[case] / np.abs(changed[case]).sum()
        np.testing.assert_allclose(after, before[case], atol=1e-5)
    others = [case for case in split["train"] if case not in same]
    assert any(not np.allclose(crossed[case], changed[case], atol=1e-3) for case in others)


def test_inputs_count_as_their_weights_say(readable):
    part, split, _ = fitted(readable)
    part.refitted = False
    risks = part(readable.inputs(split["train"])).double().numpy()
    present = {
        "slide": [readable.cohort.has_slides(case) for case in split["train"]],
        "rna": readable.genes(split["train"])[1],
    }
    present |= {"amount": present["slide"], "covariates": [True] * len(split["train"])}
    spread = {}
    for column, name in enumerate(LINEAR_INPUTS):
        of_input = risks[np.array(present[name]), column]
        assert of_input.mean() == pytest.approx(0, abs=1e-5)
        spread[name] = of_input.std()
        assert (risks[~np.array(present[name]), column] == 0).all()
    for name, value in spread.items():
        assert value / spread["slide"] == pytest.approx(WEIGHT[name] / WEIGHT["slide"], rel=1e-4)


def test_a_patient_has_the_same_risk_in_any_company(readable):
    part, split, _ = fitted(readable)
    together = part(readable.inputs(split["val"]))
    alone = torch.cat([part(readable.inputs([case])) for case in split["val"]])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("read", [("slide", "amount"), ("rna",), ("covariates",)], ids="-".join)
def test_what_a_model_does_not_read_adds_nothing(read, readable):
    part = LinearPart({name: WIDTHS[name] for name in read})
    split = {"train": readable.cases[60:], "val": readable.cases[:60]}
    crossed = fit_linear_part(part, readable, split, "split")
    found = part(readable.inputs(split["val"]))
    assert (found.any(0).numpy() == [name in read for name in LINEAR_INPUTS]).all()
    assert (np.any(list(crossed.values()), 0) == [name in read for name in LINEAR_INPUTS]).all()


def test_gradients_reach_patches_and_genes(readable):
    part, split, _ = fitted(readable)
    inputs = readable.inputs(split["val"][:3])
    inputs.patches.requires_grad_(), inputs.genes.requires_grad_()
    part(inputs).sum().backward()
    assert inputs.patches.grad.any()
    assert inputs.genes.grad[0].any()


def test_unknown_hospitals_and_few_ones_are_divided_by_patient():
    for readable in (Readable(hospitals=FOLDS - 1), Readable()):
        readable.sites[0] = None if readable.sites[FOLDS] != readable.sites[0] else "h0"
        _, split, crossed = fitted(readable)
        assert c_index(readable, split["train"], [crossed[c].sum() for c in split["train"]]) > 0.7


def test_training_without_an_event_is_refused():
    readable = Readable()
    readable.known[:, 1] = 0
    readable.known[:60, 1] = 1  # of validation alone
    with pytest.raises(GimpError, match=r"survival.linear=true: split 'split': found no event"):
        fitted(readable)


@pytest.mark.parametrize(("method", "modalities"), METHODS, ids="-".join)
def test_every_model_may_have_it(method, modalities, cohort_folder, tmp_path):
    asked = [*settings(method, modalities), *LINEAR, "covariates=[age,stage]"]
    out, cohort = train_run(tmp_path / "run", cohort_folder, *asked), open_cohort(cohort_folder)
    model = gimp_fast.load(out)
    recorded = open_run(out).predictions.of("test")
    cases = recorded.case_id.tolist()
    export_model(model, tmp_path / "model")
    for one in (model, gimp_fast.load(tmp_path / "model")):
        assert one.model.linear_part.refitted
        found = predict_cohort([one], cohort, cases)
        np.testing.assert_allclose(found.table["risk"], recorded.predicted["risk"], atol=1e-6)
    reader = model.reader_of(cohort, model.columns_in(cohort))
    for how in ATTRIBUTIONS if modalities != "rna" else ():
        with contextlib.suppress(GimpError):  # not of this method
            words = describe(model, how)
            assert words.endswith("without the linear part") == (how != "gradient")
            weights = attribute(model, reader.inputs(cases[:1]), how, give_up_patches=True)
            np.testing.assert_allclose(weights.predictions[0], found.table["risk"][0], atol=1e-6)
            assert np.isfinite(weights.patches).all()
    inputs = reader.inputs(cases[:3])
    with torch.no_grad():
        whole = model.model(inputs)
        linear = model.model.linear_part(inputs)
        model.model.linear_part = None
        model.model.config = model.model.config.model_copy(update={"linear": False})
        rest = model.model(inputs)
    torch.testing.assert_close(whole, rest + linear.sum(1, keepdim=True), atol=1e-5, rtol=1e-5)
    assert linear.any(0).numpy().tolist() == [
        modalities != "rna", modalities != "rna", modalities != "slide", True
    ]  # fmt: skip


def test_the_network_begins_at_nothing(cohort_folder, tmp_path):
    still = ["finetune.lr=1e-12", "finetune.weight_decay=0"]
    asked = [*settings("gimp", "both"), *LINEAR, *still]
    model = gimp_fast.load(train_run(tmp_path / "run", cohort_folder, *asked))
    cohort = open_cohort(cohort_folder)
    reader = model.reader_of(cohort, model.columns_in(cohort))
    inputs = reader.inputs(cohort.case_ids[:4])
    with torch.no_grad():
        outputs, linear = model.model(inputs), model.model.linear_part(inputs)
    torch.testing.assert_close(outputs, linear.sum(1, keepdim=True), atol=1e-6, rtol=0)


@pytest.mark.parametrize("target", ["burden", "classification", "[os,burden]"])
def test_another_target_is_refused(target, cohort_folder, tmp_path):
    asked = [*settings("snn", "rna"), f"target={target}", "survival.linear=true"]
    with pytest.raises(GimpError, match=r"survival.linear=true: found .* one target of survival"):
        train_run(tmp_path / "run", cohort_folder, *asked)
    assert not (tmp_path / "run").exists()


def test_heads_of_one_modality_are_refused():
    with pytest.raises(GimpError, match=r"model\.missing=token with survival\.linear=true"):
        load_config(overrides=["survival.linear=true", "model.missing=heads"])


def test_without_it_configurations_are_as_before():
    assert "linear" not in SurvivalSettings().model_dump()
    assert "linear" not in load_config().model_dump(mode="json")["survival"]
    assert SurvivalSettings(linear=True).model_dump()["linear"] is True


def test_validation_patients_are_recorded_by_a_fit_without_them(cohort_folder, tmp_path):
    asked = [*settings("gimp", "both"), *LINEAR]
    out = train_run(tmp_path / "run", cohort_folder, *asked)  # pre-training is evaluated, too
    model, cohort = gimp_fast.load(out), open_cohort(cohort_folder)
    recorded = open_run(out).predictions.of("val")
    risks = {}
    for refitted in (False, True):
        model.model.linear_part.refitted = refitted
        found = predict_cohort([model], cohort, recorded.case_id.tolist())
        risks[refitted] = found.table["risk"].to_numpy()
    np.testing.assert_allclose(risks[False], recorded.predicted["risk"], atol=1e-6)
    assert not np.allclose(risks[True], risks[False], atol=1e-3)
