"""What a target makes of outputs and truth, beyond its losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders.ranks import OneOfTwo

from gimp_fast.evaluation.intervals import patient_weights
from gimp_fast.evaluation.survival import harrell_c
from gimp_fast.targets import Classification
from gimp_fast.targets.regression import Regression
from gimp_fast.targets.survival import Survival, SurvivalSettings, outcomes_of
from gimp_fast.targets.survival_losses import discrete_nll


def outcomes(n=40, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([rng.exponential(100, n) + 1, rng.random(n) < 0.6], axis=1)


def outputs(n, width, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, width)))


def survival(loss="nll", **settings):
    return Survival.fit(SurvivalSettings(loss=loss, **settings), outcomes(), "days")


def test_predictions_are_the_risk_and_falling_survival():
    target = survival()
    found = target.predictions(outputs(40, 4)).numpy()
    assert found.shape == (40, 1 + len(target.times))
    assert (np.diff(found[:, 1:], axis=1) <= 1e-6).all()
    assert ((found[:, 1:] >= 0) & (found[:, 1:] <= 1)).all()
    assert target.prediction_columns == ("risk", *(f"survival_{t:g}" for t in target.horizons))
    reported = target.reported(found)
    assert reported.shape == (40, 4)
    assert (reported[:, 0] == found[:, 0]).all()
    # The horizons are quartiles of the training events, which are the inner edges of four bins.
    np.testing.assert_allclose(target.horizons, target.edges[1:-1].numpy())


def test_the_validation_loss_is_the_likelihood_of_the_hazards():
    target, truth, raw = survival(), outcomes(), outputs(40, 4)
    bins = target.bins(torch.from_numpy(truth))
    expected = discrete_nll(raw, bins, torch.from_numpy(truth[:, 1] > 0)).mean()
    scores = target.scores(target.predictions(raw).numpy(), truth)
    assert scores["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_the_baseline_of_cox_is_that_of_validation_patients():
    target, truth = survival("cox"), torch.from_numpy(outcomes(60, seed=3))
    raw = outputs(60, 1)
    assert target.calibrate(lambda: raw, truth)
    found = target.predictions(raw).numpy()
    assert (np.diff(found[:, 1:], axis=1) <= 1e-6).all()
    order = np.argsort(found[:, 0])
    assert (np.diff(found[order, 1:], axis=0) <= 1e-6).all()  # a higher risk survives less
    # Shifted log-risks are the same model.
    moved = survival("cox")
    moved.calibrate(lambda: raw + 5, truth)
    np.testing.assert_allclose(moved.predictions(raw + 5).numpy()[:, 1:], found[:, 1:], atol=1e-5)


def test_risk_sets_are_those_of_all_ranks():
    target, truth = survival("cox"), torch.from_numpy(outcomes(20, seed=5))
    raw = outputs(20, 1).requires_grad_()
    whole = target.loss(raw, truth).mean()
    (expected,) = torch.autograd.grad(whole, raw)
    columns, total, gradient = (raw[:, 0], truth[:, 0], truth[:, 1] > 0), 0.0, torch.zeros(20, 1)
    for rank, rows in enumerate((slice(0, 10), slice(10, 20))):
        with target.of_batch(OneOfTwo(rank, columns)):
            loss = target.loss(raw[rows], truth[rows]).sum() / 20
        total += loss.item()
        gradient += torch.autograd.grad(loss, raw)[0]
    assert total == pytest.approx(whole.item(), rel=1e-6)
    torch.testing.assert_close(gradient.to(expected.dtype), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("loss", ["nll", "cox"])
def test_survival_is_learned_in_batches_of_one_event_or_none(loss):
    target = survival(loss)
    truth = torch.tensor([[10.0, 0.0], [20.0, 0.0], [30.0, 0.0]], dtype=torch.float64)
    raw = outputs(3, target.num_outputs).requires_grad_()
    target.loss(raw, truth).mean().backward()
    assert raw.grad.isfinite().all()
    if loss == "cox":
        assert not raw.grad.any()


def test_facts_and_buffers_make_the_target_again():
    for target in (survival(), survival("cox", bins=2), Regression.fit(np.arange(9.0))):
        again = type(target).of_facts(target.facts())
        again.load_state_dict(target.state_dict())
        raw = outputs(5, target.num_outputs)
        assert torch.equal(again.predictions(raw), target.predictions(raw))


@pytest.mark.parametrize(
    ("target", "width", "truth"),
    [
        (Classification(), 3, torch.tensor([0, 0, 1, 2])),
        (survival(), 4, torch.from_numpy(outcomes(4))),
        (survival("cox"), 1, torch.from_numpy(outcomes(4))),
        (Regression.fit(np.arange(9.0)), 1, torch.tensor([0.0, 3.0, 5.0, 8.0]).double()),
    ],
    ids=["class", "nll", "cox", "number"],
)
def test_what_is_explained_is_differentiable_and_pairs_have_no_diagonal(target, width, truth):
    raw = outputs(1, width)[0].requires_grad_()
    target.explained(raw).backward()
    assert raw.grad.any()
    positive, negative = target.pairs(truth)
    assert not positive.diagonal().any()
    assert not (positive & negative).any()
    assert torch.equal(positive, positive.T)
    assert torch.equal(negative, negative.T)


def test_numbers_are_standardised_and_put_back():
    truth = np.array([10.0, 20.0, 30.0, 60.0])
    target = Regression.fit(truth)
    raw = torch.from_numpy((truth - truth.mean()) / truth.std())[:, None]
    np.testing.assert_allclose(target.predictions(raw)[:, 0], truth, rtol=1e-6)
    assert target.loss(raw, torch.from_numpy(truth)).abs().max() < 1e-12
    assert target.scores(target.predictions(raw).numpy(), truth)["correlation"] == pytest.approx(1)
    with pytest.raises(ValueError, match="the same value, 2, for all 3 training patients"):
        Regression.fit(np.full(3, 2.0))


def test_predictions_that_are_not_finite_have_a_loss_alone():
    target = survival()
    found = target.predictions(outputs(40, 4)).numpy()
    found[0, 0] = np.nan
    assert list(target.scores(found, outcomes())) == ["loss"]


@pytest.mark.parametrize("horizons", [[3.0, 1.0], [0.0, 1.0], [1.0, 1.0], []], ids=str)
def test_horizons_must_rise(horizons):
    with pytest.raises(ValueError, match=r"horizons: found .*; expected times above 0, rising"):
        SurvivalSettings(horizons=horizons)


def test_a_checkpoint_cannot_ask_for_a_giant_target():
    facts = survival().facts() | {"sizes": [5, 10**12]}
    with pytest.raises(ValueError, match="1000000000000"):
        Survival.of_facts(facts)


def test_survival_is_compared_by_its_c_index():
    target, truth = survival(), outcomes(30, seed=4)
    shown = {name: target.predictions(outputs(30, 4, seed)).numpy() for name, seed in NAMES.items()}
    found = target.compared(shown, "whole", truth, patient_weights(30, 200))
    c_of = {name: harrell_c(outcomes_of(truth), risks[:, 0]) for name, risks in shown.items()}
    assert list(found) == ["part", "other"]
    for name, scores in found.items():
        assert list(scores) == ["c_index"]
        assert scores["c_index"].value == pytest.approx(c_of[name] - c_of["whole"])
    recorded = target.evaluated(shown["part"], truth, outcomes(), 50, seed=0)
    assert recorded["n"] == 30
    assert recorded["c_index"]["value"] == pytest.approx(c_of["part"])


NAMES = {"whole": 1, "part": 2, "other": 3}


def test_survival_without_a_comparable_pair_has_no_difference():
    target, truth = survival(), np.array([[5.0, 0.0], [9.0, 0.0]])
    shown = {name: target.predictions(outputs(2, 4, seed)).numpy() for name, seed in NAMES.items()}
    assert target.compared(shown, "whole", truth, patient_weights(2, 20)) == {}


def test_classes_without_a_patient_have_no_difference_in_auc():
    target, truth = Classification(), np.zeros(4, int)
    shown = {name: target.predictions(outputs(4, 2, seed)).numpy() for name, seed in NAMES.items()}
    found = target.compared(shown, "whole", truth, patient_weights(4, 20))["part"]
    assert found["auc"] is None
    assert found["accuracy"].patients == 4
    recorded = target.evaluated(shown["part"], truth, truth, 20, seed=0)
    assert recorded["auc"] is None
    assert recorded["accuracy"]["n"] == 4
