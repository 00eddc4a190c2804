"""ABMIL and mean pooling beside torchmil, bag by bag, with the same weights."""

from __future__ import annotations

import pytest
import torch
from builders.models import CHANNELS
from builders.packed import packed_bags
from builders.peers import one_logit_of

from gimp_fast import models
from gimp_fast.models.inputs import PatientInputs

peers = pytest.importorskip("torchmil.models")

LENGTHS = (1, 7, 30)


def abmil_and_peer(gated):
    """Ours, and torchmil's of embedded rows, whose one logit is the difference of our two."""
    torch.manual_seed(0)
    sizes = {"num_outputs": 2, "feature_dim": CHANNELS, "dim": 16, "attention_dim": 8}
    ours = models.build("abmil", sizes | {"gated": gated}).double().eval()
    peer = peers.ABMIL((16,), att_dim=8, gated=gated).double()
    scores = ours.pool.scores
    peer.pool.fc1.module.load_state_dict(scores.value.state_dict())
    peer.pool.fc2.weight = scores.score.weight  # it has no bias, which the softmax cancels
    if gated:
        peer.pool.fc_gated.module.load_state_dict(scores.gate.state_dict())
    one_logit_of(ours.head, peer.classifier.module)
    return ours, peer.eval()


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
def test_logits_and_attention_equal_torchmils(gated):
    ours, peer = abmil_and_peer(gated)
    patches, cu_seqlens = packed_bags(LENGTHS, CHANNELS)
    inputs = PatientInputs.of(patches, cu_seqlens)
    logits, attention = ours(inputs), ours.attention(inputs)
    for i, bag in enumerate(patches.split(LENGTHS)):
        logit, scores = peer(ours.embed(bag)[None], return_att=True)
        torch.testing.assert_close(logits[i : i + 1, 1] - logits[i : i + 1, 0], logit)
        torch.testing.assert_close(attention.split(LENGTHS)[i][:, 0], scores[0].softmax(0))


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
def test_gradients_of_the_patches_equal_torchmils(gated):
    ours, peer = abmil_and_peer(gated)
    patches, cu_seqlens = packed_bags(LENGTHS, CHANNELS)
    patches.requires_grad_()
    labels = torch.tensor([0, 1, 1])
    (found,) = torch.autograd.grad(
        ours.loss(labels, PatientInputs.of(patches, cu_seqlens)).loss.sum(), patches
    )
    losses = [
        peer.compute_loss(label[None].double(), ours.embed(bag)[None])[1]["BCEWithLogitsLoss"]
        for label, bag in zip(labels, patches.split(LENGTHS), strict=True)
    ]
    (expected,) = torch.autograd.grad(sum(losses), patches)
    torch.testing.assert_close(found, expected)


def test_mean_pooling_is_a_linear_classifier_of_the_mean():
    torch.manual_seed(0)
    model = models.build("mean_pool", {"num_outputs": 3, "feature_dim": CHANNELS}).double()
    patches, cu_seqlens = packed_bags(LENGTHS, CHANNELS)
    expected = [model.head.weight @ bag.mean(0) + model.head.bias for bag in patches.split(LENGTHS)]
    torch.testing.assert_close(model(patches, cu_seqlens), torch.stack(expected))
