"""TransMIL beside torchmil and beside the formulas with nystrom-attention's layers."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from builders.models import CHANNELS, seeded_model
from builders.packed import cu_seqlens_of, random_rows
from builders.peers import one_logit_of
from torch import nn

from gimp_fast.models.transmil import PyramidPositions
from gimp_fast.ops.packing import Bags

DIM = 16
SETTINGS = {"num_outputs": 2, "feature_dim": CHANNELS, "dim": DIM, "num_landmarks": 10, "heads": 4}


def make(**changes):
    return seeded_model("transmil", SETTINGS | changes)


def bag_of(n, seed=0):
    return random_rows(n, CHANNELS, seed=seed)


def square(rows):
    """Rows and the first of them again, until they fill a square."""
    side = math.ceil(math.sqrt(len(rows)))
    return torch.cat([rows, rows[: side * side - len(rows)]]), side


def by_formula(model, bag, layers):
    """Logits of one bag; `layers` attend within (1, N, d)."""
    rows, side = square(torch.relu(model.embed[0](bag)))
    hidden = torch.cat([model.cls_token[None], rows])[None]  # (1, 1 + s², d)
    hidden = hidden + layers[0](model.norms[0](hidden))
    grid = hidden[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    grid = grid + sum(conv(grid) for conv in model.positions.convs)
    hidden = torch.cat([hidden[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
    hidden = hidden + layers[1](model.norms[1](hidden))
    return model.head(model.norm(hidden)[0, 0])


class Exact(nn.Module):
    """Softmax attention with the weights of a Nyström layer, as it is for N ≤ M."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        heads = self.layer.heads
        q, k, v = self.layer.to_qkv(x).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        out = weights @ v + self.layer.res_conv(v)
        return self.layer.to_out(out.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 9, 10, 37])
def test_short_bags_follow_the_formulas_with_exact_attention(n):
    model = make(num_landmarks=64)
    expected = by_formula(model, bag_of(n), [Exact(layer) for layer in model.layers])
    torch.testing.assert_close(model(bag_of(n))[0], expected)


@pytest.mark.parametrize("n", [37, 49, 350])
def test_longer_bags_follow_the_formulas_with_the_peers_layers(n):
    peer = pytest.importorskip("nystrom_attention")
    # The peer shares its maxima over heads and pads: one head, and landmarks that divide.
    model = make(heads=1, num_landmarks=10 if n < 50 else 181)
    layers = []
    for layer in model.layers:
        layer.to_qkv.weight.data *= 3
        landmarks = layer.num_landmarks
        copy = peer.NystromAttention(DIM, dim_head=DIM, heads=1, num_landmarks=landmarks)
        layers.append(copy.double())
        layers[-1].load_state_dict(layer.state_dict())
    bag = bag_of(n).requires_grad_()
    found, expected = model(bag)[0], by_formula(model, bag, layers)
    torch.testing.assert_close(found, expected)
    weights = [*model.embed.parameters(), model.cls_token, *model.positions.parameters()]
    gradients = [
        torch.autograd.grad(logits[1], [bag, *weights], retain_graph=True)
        for logits in (found, expected)
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("n", [37, 45, 49])
def test_logits_equal_torchmils(n):
    peers = pytest.importorskip("torchmil.models")
    model = make(heads=1)
    peer = peers.TransMIL((DIM,), att_dim=DIM, n_heads=1, n_landmarks=10).double().eval()
    # It has no ReLU (it gets embedded rows), no output projection and no residual convolution.
    peer.cls_token.data = model.cls_token[None, None]
    peer.norm.load_state_dict(model.norm.state_dict())
    one_logit_of(model.head, peer.classifier)
    convs = (peer.pos_layer.proj, peer.pos_layer.proj1, peer.pos_layer.proj2)
    for theirs, ours in zip(convs, model.positions.convs, strict=True):
        theirs.load_state_dict(ours.state_dict())
    for theirs, ours, norm in zip(peer.layers, model.layers, model.norms, strict=True):
        theirs.norm1.load_state_dict(norm.state_dict())
        theirs.att_module.qkv_nn.weight = ours.to_qkv.weight
        ours.to_out[0].weight.data = torch.eye(DIM, dtype=torch.float64)
        ours.to_out[0].bias.data.zero_()
        ours.res_conv.weight.data.zero_()
    logits = model(bag_of(n))[0]
    expected = peer(model.embed(bag_of(n))[None])[0]
    torch.testing.assert_close(logits[1] - logits[0], expected)


@pytest.mark.parametrize("sides", [(1,), (2,), (3, 1, 8)], ids=str)
def test_one_convolution_is_the_sum_of_three(sides):
    torch.manual_seed(0)
    positions = PyramidPositions(6).double()
    bags = Bags.of_lengths([1 + side * side for side in sides])
    tokens = torch.randn(bags.num_rows, 6, dtype=torch.float64)
    expected = []
    for bag, side in zip(tokens.split(bags.lengths), sides, strict=True):
        grid = bag[1:].T.reshape(6, side, side)
        grid = grid + sum(
            F.conv2d(grid[None], conv.weight, conv.bias, padding=size // 2, groups=6)[0]
            for conv, size in zip(positions.convs, (7, 5, 3), strict=True)
        )
        expected += [bag[:1], grid.flatten(1).T]
    torch.testing.assert_close(positions(tokens, bags), torch.cat(expected))


def test_the_order_of_a_bag_matters_and_its_place_among_others_does_not():
    model, bag = make(), bag_of(40)
    assert not torch.allclose(model(bag)[0], model(bag.flip(0))[0])
    mates = bag_of(7, seed=1)
    packed = model(torch.cat([mates, bag, mates]), cu_seqlens_of([7, 40, 7]))
    torch.testing.assert_close(packed[1], model(bag)[0])


def test_heads_that_do_not_divide_the_width_are_an_error():
    with pytest.raises(ValueError, match=r"heads \(3\) must divide dim \(16\)"):
        make(heads=3)
