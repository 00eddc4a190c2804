"""Triplets of outcomes that may be censored: which pairs are known, and their loss."""

from __future__ import annotations

import pytest
import torch

from gimp_fast.losses import triplet_loss, triplet_loss_of_pairs
from gimp_fast.targets.survival_losses import outcome_pairs

# Patient, bin, event:  a, b, c had the event in bins 0, 0 and 1; d was censored in bin 0, e in
# bin 1, f in bin 2.
BINS = torch.tensor([0, 0, 1, 0, 1, 2])
EVENT = torch.tensor([True, True, True, False, False, False])
# Of each anchor, by number: the others of the same bin, and those who are known to differ. d was
# censored in the bin of the first two events, and may have had the event with any other patient;
# so may e with c, but a and b had theirs before.
POSITIVES = {0: [1], 1: [0], 2: [], 3: [], 4: [], 5: []}
NEGATIVES = {0: [2, 4, 5], 1: [2, 4, 5], 2: [0, 1, 5], 3: [], 4: [0, 1], 5: [0, 1, 2]}


def outcome_triplet_loss(x, bins, event, **settings):
    return triplet_loss_of_pairs(x, *outcome_pairs(bins, event), **settings)


def written_out(x, positives, negatives, margin, mining) -> float:
    terms = {
        anchor: [
            max(((x[anchor] - x[p]) ** 2).sum() + margin - ((x[anchor] - x[n]) ** 2).sum(), 0.0)
            for p in positives[anchor]
            for n in negatives[anchor]
        ]
        for anchor in positives
    }
    if mining == "hard":
        kept = [max(values) for values in terms.values() if values]
    else:
        kept = [term for values in terms.values() for term in values if term > 0]
    return float(sum(kept)) / len(kept)


def features(patients: int, channels: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(patients, channels, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("mining", ["hard", "all"])
def test_pairs_are_those_that_what_was_seen_decides(mining):
    x = features(6)
    loss = outcome_triplet_loss(x, BINS, EVENT, margin=0.8, mining=mining)
    expected = written_out(x, POSITIVES, NEGATIVES, 0.8, mining)
    assert loss.item() == pytest.approx(expected, abs=1e-12)


def test_who_was_censored_early_has_no_gradient():
    x = features(6).requires_grad_()
    outcome_triplet_loss(x, BINS, EVENT, margin=100, mining="all").backward()
    assert (x.grad != 0).any(1).tolist() == [True, True, True, False, True, True]


@pytest.mark.parametrize("mining", ["hard", "all"])
def test_without_censoring_it_is_the_triplet_loss_of_bins(mining):
    x, bins = features(7), torch.tensor([0, 2, 1, 1, 0, 2, 2])
    loss = outcome_triplet_loss(x, bins, torch.ones(7, dtype=torch.bool), mining=mining)
    assert torch.equal(loss, triplet_loss(x, bins, mining=mining))


@pytest.mark.parametrize("normalize", [False, True], ids=["raw", "unit"])
@pytest.mark.parametrize("mining", ["hard", "all"])
def test_gradcheck(mining, normalize):
    x = features(6, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: outcome_triplet_loss(x, BINS, EVENT, mining=mining, normalize=normalize), x
    )


NO_TRIPLET = {
    "no-event": (BINS, torch.zeros(6, dtype=torch.bool)),
    "one-event-a-bin": (torch.tensor([0, 1, 2, 0, 1, 2]), EVENT),
    "no-later-time": (torch.tensor([1, 1, 1, 0, 1, 0]), EVENT),
}


@pytest.mark.parametrize("mining", ["hard", "all"])
@pytest.mark.parametrize("case", NO_TRIPLET.values(), ids=NO_TRIPLET.keys())
def test_no_triplet_gives_zero_loss_and_zero_gradient(case, mining):
    x = features(6).requires_grad_()
    loss = outcome_triplet_loss(x, *case, mining=mining)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: outcome_pairs(BINS[:5], EVENT), r"event: found shape \(6,\); expected \(5\)"),
        (lambda: outcome_pairs(BINS[:, None], EVENT), r"bins: found shape \(6, 1\)"),
        (lambda: outcome_pairs(BINS, EVENT.long()), "event: found torch.int64"),
        (lambda: outcome_triplet_loss(features(5), BINS, EVENT), r"must be \(5, 5\), got \(6, 6\)"),
        (lambda: outcome_triplet_loss(features(6), BINS, EVENT, mining="soft"), "'soft'"),
    ],
    ids=["patients", "shape", "dtype", "pairs", "mining"],
)
def test_bad_input_names_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
