"""DSMIL beside torchmil, whose one class stands for each of ours in turn; ties; the two losses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from builders.models import CHANNELS, seeded_model
from builders.packed import packed_bags, random_rows

from gimp_fast.models.inputs import PatientInputs

CLASSES, LENGTHS = 3, (1, 7, 30)
SETTINGS = {"num_outputs": CLASSES, "feature_dim": CHANNELS, "query_dim": 8}


def make(**changes):
    return seeded_model("dsmil", SETTINGS | changes)


def peer_of(model, of_class, into_logit):
    """torchmil's, which sees one class, and of the convolution the part into one logit."""
    peers = pytest.importorskip("torchmil.models")
    peer = peers.DSMIL((CHANNELS,), att_dim=8, nonlinear_q=True).double()
    peer.q_nn.load_state_dict(model.query.state_dict())
    peer.inst_classifier.weight.data = model.instances.weight[of_class : of_class + 1]
    peer.inst_classifier.bias.data = model.instances.bias[of_class : of_class + 1]
    part = model.head.weight.unflatten(1, (CLASSES, CHANNELS))[into_logit, of_class]
    peer.bag_classifier.weight.data = part[None]
    peer.bag_classifier.bias.data.zero_()
    return peer.eval()


def test_logits_and_attention_equal_torchmils():
    model = make()
    patches, cu_seqlens = packed_bags(LENGTHS, CHANNELS)
    inputs = PatientInputs.of(patches, cu_seqlens)
    logits, attention = model(inputs), model.attention(inputs)
    for i, bag in enumerate(patches.split(LENGTHS)):
        for logit in range(CLASSES):
            streams = [
                peer_of(model, k, logit)(bag[None], None, True, True) for k in range(CLASSES)
            ]
            of_bag = model.head.bias[logit] + sum(peer_logit for peer_logit, _, _ in streams)
            largest = streams[logit][2].max(1).values
            torch.testing.assert_close(logits[i, logit][None], (of_bag + largest) / 2)
            for k, (_, weights, _) in enumerate(streams):
                torch.testing.assert_close(attention.split(LENGTHS)[i][:, k], weights[0, :, 0])


def test_formulas_of_one_bag():
    model, bag = make(), random_rows(9, CHANNELS)
    scores = model.instances(bag)
    queries = torch.tanh(model.query[2](torch.relu(model.query[0](bag))))
    embeddings = []
    for k in range(CLASSES):
        critical = queries[int(scores[:, k].argmax())]
        weights = torch.stack([q @ critical / 8**0.5 for q in queries]).softmax(0)
        embeddings.append(sum(w * row for w, row in zip(weights, bag, strict=True)))
    # The convolution that the paper describes: over the channels, as long as they are.
    kernel = model.head.weight.unflatten(1, (CLASSES, CHANNELS))
    of_bag = F.conv1d(torch.stack(embeddings)[None], kernel, model.head.bias)[0, :, 0]
    expected = (of_bag + scores.max(0).values) / 2
    torch.testing.assert_close(model(bag)[0], expected)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_the_loss_weighs_the_bag_against_its_critical_instances(weight):
    model = make(bag_weight=weight)
    patches, cu_seqlens = packed_bags(LENGTHS, CHANNELS)
    labels = torch.tensor([2, 0, 1])
    found = model.loss(labels, PatientInputs.of(patches, cu_seqlens)).loss
    largest = torch.stack([model.instances(bag).amax(0) for bag in patches.split(LENGTHS)])
    of_bag = 2 * model(patches, cu_seqlens) - largest
    expected = weight * F.cross_entropy(of_bag, labels, reduction="none")
    expected = expected + (1 - weight) * F.cross_entropy(largest, labels, reduction="none")
    torch.testing.assert_close(found, expected.float())


def test_of_instances_that_tie_the_first_is_critical():
    model, bag = make(), random_rows(5, CHANNELS)
    bag = bag[[3, 0, 1, 0, 1]]
    model.instances.weight.data.zero_()  # all instances of all classes tie
    queries = model.query(bag)
    expected = (queries @ queries[0] / 8**0.5).softmax(0)
    attention = model.attention(PatientInputs.of(bag))
    torch.testing.assert_close(attention, expected[:, None].expand(-1, CLASSES))
    bag.requires_grad_()
    model.loss(torch.tensor([1]), PatientInputs.of(bag)).loss.sum().backward()
    assert bag.grad.isfinite().all()


def test_the_order_of_a_bag_does_not_matter():
    model, bag = make(), random_rows(20, CHANNELS)
    torch.testing.assert_close(model(bag.flip(0)), model(bag))
