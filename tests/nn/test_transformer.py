"""Our Transformer beside torch's, whose weights it has."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gimp_fast.nn.transformer import Transformer

DIM, HEADS, HIDDEN, LAYERS = 8, 2, 12, 2


def module_and_peer():
    torch.manual_seed(0)
    ours = Transformer(LAYERS, DIM, HEADS, HIDDEN).double()
    layer = nn.TransformerEncoderLayer(DIM, HEADS, HIDDEN, 0.0, batch_first=True)
    peer = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False).double()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    peer.load_state_dict(ours.state_dict())
    return ours, peer


@pytest.mark.parametrize("shape", [(3, 6), (1, 1), (0, 2)], ids=["B3-N6", "B1-N1", "B0-N2"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_values_and_gradients_are_those_of_torch(shape, training):
    ours, peer = (module.train(training) for module in module_and_peer())
    x = torch.randn(*shape, DIM, dtype=torch.float64)
    found, expected = (x.clone().requires_grad_() for _ in range(2))
    out, peer_out = ours(found), peer(expected)
    torch.testing.assert_close(out, peer_out)
    factors = torch.randn_like(out)
    (out * factors).sum().backward()
    (peer_out * factors).sum().backward()
    torch.testing.assert_close(found.grad, expected.grad)
    for (name, parameter), other in zip(ours.named_parameters(), peer.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, msg=lambda text, n=name: n + text)


def test_layers_begin_with_equal_weights():
    first, second = Transformer(LAYERS, DIM, HEADS, HIDDEN).layers
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    module, x = Transformer(LAYERS, DIM, HEADS, HIDDEN, dropout=0.5), torch.randn(2, 3, DIM)
    assert not torch.equal(module(x), module(x))
    module.eval()
    assert torch.equal(module(x), module(x))
