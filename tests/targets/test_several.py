"""Several targets: their losses, what is not known, their scores and their columns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders.ranks import OneOfTwo

from gimp_fast.targets import Classification
from gimp_fast.targets.member import Member
from gimp_fast.targets.regression import Regression
from gimp_fast.targets.several import UNKNOWN, Several
from gimp_fast.targets.survival import Survival, SurvivalSettings
from gimp_fast.training.task import target_of_facts

CLASSES = ("a", "b", "c")
NAN = float("nan")
LOSSES = ["nll", "cox"]


def truth(n=30, seed=0):
    """Time, event, place of the class and number: all known."""
    rng = np.random.default_rng(seed)
    outcomes = rng.exponential(100, n) + 1, rng.random(n) < 0.6
    return np.stack([*outcomes, rng.integers(3, size=n), rng.normal(5, 2, n)], axis=1)


def several(loss="nll", weights=(1.0, 1.0, 1.0)):
    known = truth(60, seed=9)
    members = [
        Member("os", Survival.fit(SurvivalSettings(loss=loss), known[:, :2], "days")),
        Member("subtype", Classification(), CLASSES),
        Member("burden", Regression.fit(known[:, 3])),
    ]
    return Several([replace(m, weight=w) for m, w in zip(members, weights, strict=True)])


def outputs(target, n=30, seed=1):
    values = np.random.default_rng(seed).normal(size=(n, target.num_outputs))
    return torch.from_numpy(values).requires_grad_()


def with_gaps(values, seed=2):
    """Each patient lacks up to two of the three targets."""
    values, rng = values.copy(), np.random.default_rng(seed)
    for row, lacking in enumerate(rng.integers(8, size=len(values)) % 7):
        for place, columns in enumerate((slice(0, 2), slice(2, 3), slice(3, 4))):
            if lacking >> place & 1:
                values[row, columns] = np.nan
    return values


def losses_of_members(target, raw, answer):
    """(B, 3), each member's loss of each patient alone; Cox's of all who are known."""
    found = torch.full((len(raw), 3), NAN, dtype=torch.float64)
    for place, member in enumerate(target.members):
        rows = target.known(answer)[:, place].nonzero()[:, 0]
        own = raw[rows][:, target.outputs[place]]
        wanted = member.typed(answer[rows][:, target.truths[place]])
        found[rows, place] = member.target.loss(own, wanted).double()
    return found


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("gaps", [False, True], ids=["all-known", "gaps"])
def test_the_loss_of_a_patient_is_the_mean_of_what_is_known(loss, gaps):
    target = several(loss)
    answer = torch.from_numpy(with_gaps(truth()) if gaps else truth())
    raw = outputs(target)
    expected = losses_of_members(target, raw, answer).nanmean(1)
    found = target.loss(raw, answer)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-7)
    ours, theirs = (torch.autograd.grad(x.sum(), raw)[0] for x in (found, expected))
    assert ours.isfinite().all()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("loss", LOSSES)
def test_weights_say_how_much_a_target_counts(loss):
    weights = (1.0, 0.5, 3.0)
    target, answer = several(loss, weights), torch.from_numpy(with_gaps(truth()))
    raw = outputs(target)
    losses, known = losses_of_members(target, raw, answer), target.known(answer)
    factor = known * torch.tensor(weights, dtype=torch.float64)
    expected = (losses.nan_to_num() * factor).sum(1) / factor.sum(1)
    torch.testing.assert_close(target.loss(raw, answer).double(), expected, rtol=1e-6, atol=1e-7)
    small = several(loss, (1.0, 1e-9, 1e-9))
    outcomes = torch.from_numpy(truth())
    alone = small.members[0].target.loss(raw[:, small.outputs[0]], outcomes[:, :2])
    torch.testing.assert_close(small.loss(raw, outcomes).double(), alone.double())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_beside_targets_without_a_value_one_is_learnt_as_alone(loss, place):
    target, answer = several(loss), torch.full((30, 4), NAN, dtype=torch.float64)
    columns = target.truths[place]
    answer[:, columns] = torch.from_numpy(truth())[:, columns]
    raw, member = outputs(target), target.members[place]
    own = raw.detach()[:, target.outputs[place]].requires_grad_()
    alone = member.target.loss(own, member.typed(answer[:, columns]))
    found = target.loss(raw, answer)
    assert torch.equal(found, alone.to(found.dtype))
    found.mean().backward()
    alone.mean().backward()
    assert torch.equal(raw.grad[:, target.outputs[place]], own.grad)
    others = raw.grad.clone()
    others[:, target.outputs[place]] = 0
    assert not others.any()


@pytest.mark.parametrize("loss", LOSSES)
def test_outputs_for_what_is_not_known_may_be_anything(loss):
    target, answer = several(loss), torch.from_numpy(with_gaps(truth()))
    raw = outputs(target).detach()
    known = target.known(answer)
    wild = raw.clone()
    for place, columns in enumerate(target.outputs):
        rows = (~known[:, place]).nonzero()[:, 0]
        wild[rows[:, None], torch.arange(columns.start, columns.stop)] = float("inf")
    gradients = []
    for values in (raw, wild):
        values.requires_grad_()
        target.loss(values, answer).mean().backward()
        gradients.append(values.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("lacking", ["some", "all-of-a-rank"])
def test_risk_sets_are_the_known_patients_of_all_ranks(lacking):
    target, values = several("cox"), with_gaps(truth(20))
    if lacking == "all-of-a-rank":
        values[10:, :2] = np.nan
        values[10:, 3] = 1.0
    answer, raw = torch.from_numpy(values), outputs(target, 20)
    whole = target.loss(raw, answer).mean()
    (expected,) = torch.autograd.grad(whole, raw)
    known = target.known(answer)
    weight = known[:, 0].double() / known.sum(1)
    columns = raw[:, target.outputs[0]], answer[:, :2], weight
    total, gradient = 0.0, torch.zeros_like(raw)
    for rank, rows in enumerate((slice(0, 10), slice(10, 20))):
        with target.of_batch(OneOfTwo(rank, columns)):
            loss = target.loss(raw[rows], answer[rows]).sum() / 20
        total += loss.item()
        gradient += torch.autograd.grad(loss, raw)[0]
    assert total == pytest.approx(whole.item(), rel=1e-6)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_patients_and_nobody_known_give_a_loss_with_a_gradient(loss, n):
    target = several(loss)
    raw = outputs(target, n)
    found = target.loss(raw, torch.full((n, 4), NAN, dtype=torch.float64))
    assert found.shape == (n,)
    found.sum().backward()
    assert not raw.grad.any()


def test_patients_are_alike_if_alike_in_all_that_both_have():
    target = several()
    low, high = 0.0, 9.0  # in the first and the last quarter of the numbers
    answer = torch.tensor(
        [
            [1.0, 1.0, 0, low],
            [2.0, 1.0, 0, low],  # as the first, in the first interval of time
            [2.0, 1.0, 0, high],  # another number
            [NAN, NAN, 0, NAN],  # the class alone
            [1.0, 0.0, NAN, low],  # censored: its time says nothing
            [NAN, NAN, NAN, low],
            [999.0, 1.0, NAN, NAN],  # the last interval, and nothing else
        ],
        dtype=torch.float64,
    )
    alike, differ = target.pairs(answer)
    pairs = {(i, j) for i, j in alike.nonzero().tolist() if i < j}
    others = {(i, j) for i, j in differ.nonzero().tolist() if i < j}
    assert pairs == {(0, 1), (0, 3), (1, 3), (2, 3), (0, 5), (1, 5), (4, 5)}
    assert others == {(0, 2), (1, 2), (2, 4), (2, 5), (0, 6), (1, 6), (2, 6)}
    assert torch.equal(alike, alike.T)
    assert torch.equal(differ, differ.T)


def test_pairs_wait_for_no_gpu():
    """They are part of the step that a CUDA graph replays: nothing depends on values."""
    found = several().to("meta").pairs(torch.empty(5, 4, dtype=torch.float64, device="meta"))
    assert [pairs.shape for pairs in found] == [(5, 5), (5, 5)]


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (2.0, 0.5, 1.0)], ids=str)
def test_the_validation_loss_is_the_mean_of_the_losses(weights):
    target, values = several(weights=weights), truth()
    raw = outputs(target).detach()
    predictions = target.predictions(raw).numpy()
    scores = target.scores(predictions, values)
    expected = target.loss(raw, torch.from_numpy(values)).mean()
    assert scores["loss"] == pytest.approx(float(expected), rel=1e-4)
    assert {"os:c_index", "subtype:accuracy", "subtype:auc", "burden:correlation"} <= scores.keys()
    gaps = with_gaps(values)
    gaps[:, 3] = np.nan
    gaps[:, 2] = values[:, 2]
    found = target.scores(predictions, gaps)
    assert not any(name.startswith("burden:") for name in found)
    assert np.isfinite(found["loss"])
    predictions[0, 0] = np.nan
    assert list(target.scores(predictions, values)) == ["loss"]


def test_an_epoch_is_chosen_by_the_mean_loss_or_by_a_score_of_one():
    target = several()
    scores = {"loss": 1.0, "os:loss": 2.0, "os:c_index": 0.6, "burden:loss": 0.1}
    assert target.measures[0] == "loss"
    assert target.rank(scores, "loss") == (-1.0,)
    assert target.rank(scores, "os:c_index") == (0.6, -2.0, -1.0)
    assert target.rank(scores, "burden:loss") == (-0.1, -1.0)
    assert target.rank(scores, "subtype:auc") == (-float("inf"),)


def test_columns_stand_side_by_side_under_the_names_of_the_targets():
    target = several()
    predictions = target.predictions(outputs(target, 5).detach()).numpy()
    reported = target.reported(predictions)
    assert reported.shape == (5, len(target.prediction_columns))
    assert target.prediction_columns[0] == "os_risk"
    assert target.prediction_columns[-4:] == (
        "subtype_prob_a", "subtype_prob_b", "subtype_prob_c", "burden_prediction",
    )  # fmt: skip
    assert target.truth_columns == ("os_time", "os_event", "subtype_label", "burden_truth")
    np.testing.assert_allclose(reported[:, target.reports[1]].sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_facts_and_buffers_make_the_targets_again(loss):
    target = several(loss)
    raw, answer = outputs(target).detach(), torch.from_numpy(with_gaps(truth()))
    changed = target.calibrate(lambda: raw, answer)
    assert changed == (loss == "cox")
    again = target_of_facts(target.facts())
    again.load_state_dict(target.state_dict())
    assert torch.equal(again.predictions(raw), target.predictions(raw))
    assert again.prediction_columns == target.prediction_columns


def test_the_baseline_of_cox_is_that_of_patients_with_an_outcome():
    target, values = several("cox"), truth()
    values[20:, :2] = np.nan
    raw = outputs(target).detach()
    target.calibrate(lambda: raw, torch.from_numpy(values))
    alone = several("cox").members[0].target
    alone.calibrate(lambda: raw[:20, :1], torch.from_numpy(values[:20, :2]))
    assert torch.equal(target.members[0].target.hazard, alone.hazard)


def test_a_probe_is_fitted_and_judged_on_known_patients():
    target, rng = several(), np.random.default_rng(4)
    known, wanted = with_gaps(truth(60, seed=5)), with_gaps(truth(20, seed=6))
    vectors, asked = rng.normal(size=(60, 4)), rng.normal(size=(20, 4))
    scores = target.probe(vectors, known, asked, wanted)
    assert {"loss", "os:c_index", "subtype:accuracy", "burden:correlation"} <= scores.keys()
    rows, of = ~np.isnan(known[:, 2]), ~np.isnan(wanted[:, 2])
    alone = Classification().probe(
        vectors[rows], known[rows, 2].astype(int), asked[of], wanted[of, 2].astype(int)
    )
    assert scores["subtype:accuracy"] == alone["accuracy"]


def test_pictures_colour_patients_by_the_first_target():
    values = truth(4)
    values[0, :2] = np.nan
    values[1:, 1] = [1, 0, 1]
    assert several().groups(values).tolist() == [
        UNKNOWN, "with the event", "censored", "with the event",
    ]  # fmt: skip
    by_class = Several([Member("subtype", Classification(), CLASSES)])
    assert by_class.groups(np.array([[2.0], [NAN]])).tolist() == ["c", UNKNOWN]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "found no target"),
        (
            [Member("a", Classification(), ("x", "y")), Member("a", Classification(), ("x", "y"))],
            "column 'a_label'",
        ),
        (
            [Member("a_prob", Regression()), Member("a", Classification(), ("prediction", "y"))],
            "'a_prob' and 'a', which both would have a column 'a_prob_prediction'",
        ),
    ],
    ids=["none", "twice", "columns"],
)
def test_targets_that_cannot_stand_in_one_table_are_refused(members, message):
    with pytest.raises(ValueError, match=message):
        Several(members)


def test_facts_that_do_not_fit_are_refused():
    facts = several().facts()
    facts["targets"][1]["classes"] = []
    with pytest.raises(ValueError, match="a target 'subtype' of classes"):
        target_of_facts(facts)
    with pytest.raises(KeyError):
        target_of_facts({"kind": "several", "targets": [several().facts() | {"name": "x"}]})
