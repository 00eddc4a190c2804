"""CLAM beside torchmil (one branch, two classes), and its instance loss by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from builders.models import CHANNELS, seeded_model
from builders.packed import packed_bags
from builders.peers import one_logit_of
from torch import nn

from gimp_fast.models.inputs import PatientInputs

LENGTHS = (1, 7, 30)
SETTINGS = {"num_outputs": 3, "feature_dim": CHANNELS, "dim": 16, "attention_dim": 8}
both = pytest.mark.parametrize("name", ["clam_sb", "clam_mb"])


def make(name, **changes):
    return seeded_model(name, SETTINGS | {"instances": 3} | changes)


class InstanceCrossEntropy(nn.Module):
    """In place of torchmil's default, the smooth SVM loss."""

    def forward(self, logits, targets):
        return F.cross_entropy(logits, targets.squeeze(-1).long())


def peer_of(model):
    """torchmil's of embedded rows, whose one logit is the difference of our two."""
    peers = pytest.importorskip("torchmil.models")
    peer = peers.CLAM_SB((16,), att_dim=8, k_sample=3, gated=True).double()
    peer.inst_loss_fn = InstanceCrossEntropy()
    scores = model.pool.scores
    peer.pool.fc1.module.load_state_dict(scores.value.state_dict())
    peer.pool.fc_gated.module.load_state_dict(scores.gate.state_dict())
    peer.pool.fc2.weight = scores.score.weight  # it has no bias, which the softmax cancels
    one_logit_of(model.head, peer.classifier.module)
    for label, classifier in enumerate(peer.inst_classifiers):
        classifier.module.weight.data = model.instances.weight[2 * label : 2 * label + 2]
        classifier.module.bias.data = model.instances.bias[2 * label : 2 * label + 2]
    return peer.eval()


def test_logits_attention_and_both_losses_equal_torchmils():
    model = make("clam_sb", num_outputs=2, bag_weight=0.7)
    peer, (patches, cu_seqlens) = peer_of(model), packed_bags(LENGTHS, CHANNELS)
    labels = torch.tensor([0, 1, 0])
    outcome = model.loss(labels, PatientInputs.of(patches, cu_seqlens))
    attention = model.attention(PatientInputs.of(patches, cu_seqlens))
    for i, bag in enumerate(model.embed(patches).split(LENGTHS)):
        logit, losses = peer.compute_loss(labels[i : i + 1].double(), bag[None])
        _, scores = peer(bag[None], return_att=True)
        difference = outcome.logits[i : i + 1, 1] - outcome.logits[i : i + 1, 0]
        torch.testing.assert_close(difference, logit.float())
        torch.testing.assert_close(attention.split(LENGTHS)[i][:, 0], scores[0].softmax(0))
        # It adds the parts of both classes, where CLAM takes their mean.
        expected = 0.7 * losses["BCEWithLogitsLoss"] + 0.3 * losses["InstLoss"] / 2
        torch.testing.assert_close(outcome.loss[i], expected.float())


def test_every_class_pools_with_a_branch_of_its_own():
    model = make("clam_mb")
    patches, cu_seqlens = packed_bags(LENGTHS, CHANNELS)
    logits, scores = model(patches, cu_seqlens), model.pool.scores
    for i, bag in enumerate(patches.split(LENGTHS)):
        rows = torch.relu(model.embed[0](bag))
        gated = torch.tanh(scores.value(rows)) * torch.sigmoid(scores.gate(rows))
        for k in range(3):
            weights = (gated @ scores.score.weight[k] + scores.score.bias[k]).softmax(0)
            expected = model.head.weight[k] @ (weights @ rows) + model.head.bias[k]
            torch.testing.assert_close(logits[i, k], expected)


def by_hand(model, bag, label, *, branches, subtyping):
    """Instance loss of one bag, a patch at a time."""
    rows, attention = torch.relu(model.embed[0](bag)), model.attention(PatientInputs.of(bag))
    k = min(3, len(bag))

    def instance_loss(row, of_class, target):
        """−log probability that the classifier of a class gives to out (0) or in (1)."""
        out_in = model.instances.weight[2 * of_class : 2 * of_class + 2] @ row
        out_in = out_in + model.instances.bias[2 * of_class : 2 * of_class + 2]
        return -out_in.log_softmax(0)[target]

    def ranked(of_class):
        column = attention[:, of_class if branches > 1 else 0].tolist()
        return sorted(range(len(bag)), key=lambda i: column[i])

    most, least = ranked(label)[-k:], ranked(label)[:k]
    total = sum(instance_loss(rows[i], label, 1) for i in most)
    total = (total + sum(instance_loss(rows[i], label, 0) for i in least)) / (2 * k)
    if not subtyping:
        return total
    for other in {0, 1, 2} - {label}:
        total = total + sum(instance_loss(rows[i], other, 0) for i in ranked(other)[-k:]) / k
    return total / 3


@both
@pytest.mark.parametrize("subtyping", [True, False], ids=["subtyping", "one-class"])
def test_instance_loss_by_hand(name, subtyping):
    model = make(name, subtyping=subtyping, bag_weight=0.25)
    patches, cu_seqlens = packed_bags(LENGTHS, CHANNELS)
    labels = torch.tensor([1, 2, 0])
    outcome = model.loss(labels, PatientInputs.of(patches, cu_seqlens))
    bag_loss = F.cross_entropy(outcome.logits, labels, reduction="none")
    branches = 3 if name == "clam_mb" else 1
    of_instances = [
        by_hand(model, bag, int(label), branches=branches, subtyping=subtyping)
        for bag, label in zip(patches.split(LENGTHS), labels, strict=True)
    ]
    expected = 0.25 * bag_loss + 0.75 * torch.stack(of_instances).float()
    torch.testing.assert_close(outcome.loss, expected)


@both
def test_without_weight_of_the_instances_the_loss_is_cross_entropy(name):
    model = make(name, bag_weight=1.0)
    patches, cu_seqlens = packed_bags(LENGTHS, CHANNELS)
    labels = torch.tensor([1, 2, 0])
    outcome = model.loss(labels, PatientInputs.of(patches, cu_seqlens))
    torch.testing.assert_close(
        outcome.loss, F.cross_entropy(outcome.logits, labels, reduction="none")
    )


@both
def test_instances_are_chosen_by_attention_and_do_not_train_it(name):
    model = make(name, bag_weight=0.0)
    patches, cu_seqlens = packed_bags(LENGTHS, CHANNELS)
    inputs = PatientInputs.of(patches, cu_seqlens)
    model.loss(torch.tensor([1, 2, 0]), inputs).loss.sum().backward()
    assert model.embed[0].weight.grad.abs().sum() > 0
    assert all(not p.grad.any() for p in model.pool.parameters() if p.grad is not None)
