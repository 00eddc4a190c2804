"""A Nyström layer whose projections have hooks, or were replaced: no way to call it skips them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gimp_fast.nn import NystromAttention
from gimp_fast.nn.linear import Linear
from gimp_fast.ops.packing import Bags, Rows

BAGS = Bags.of_equal(2, 9)
WAYS = {
    "batch": lambda layer, x: layer(x),
    "packed": lambda layer, x: layer(x.flatten(0, 1)[None], cu_seqlens=BAGS),
    "rows": lambda layer, x: layer(x, rows=Rows.first(BAGS)),
}
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def call(request):
    return request.param


@pytest.fixture
def x():
    return torch.randn(2, 9, 8)


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return NystromAttention(8, dim_head=4, heads=2, num_landmarks=4)


class Adapted(nn.Module):
    """A frozen linear layer and a trained one beside it, as in low-rank adaptation."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.added = nn.Linear(linear.in_features, linear.out_features)

    @property
    def weight(self):
        return self.linear.weight

    def forward(self, x):
        return self.linear(x) + self.added(x)

    def merged(self):
        linear = Linear(self.linear.in_features, self.linear.out_features)
        with torch.no_grad():
            linear.weight.copy_(self.linear.weight + self.added.weight)
            linear.bias.copy_(self.added.bias)
            if self.linear.bias is not None:
                linear.bias += self.linear.bias
        return linear


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward"])
def test_hooks_run(layer, x, call, kind):
    expected, called = call(layer, x), []
    names = {"to_qkv", "to_out", "to_out.0", "to_out.1"}
    for name in names:
        register = getattr(layer.get_submodule(name), f"register_{kind}_hook")
        register(lambda *_, name=name: called.append(name))
    found = call(layer, x.requires_grad_())
    found.sum().backward()
    torch.testing.assert_close(found, expected, **TOLERANCE)
    assert set(called) == names


def test_a_replaced_projection_is_called(layer, x, call):
    adapted = [Adapted(layer.to_qkv), Adapted(layer.to_out[0])]
    layer.to_qkv, layer.to_out[0] = adapted
    found = call(layer, x)
    found.sum().backward()
    assert all(y.added.weight.grad.any() for y in adapted)
    layer.to_qkv, layer.to_out[0] = (y.merged() for y in adapted)
    torch.testing.assert_close(call(layer, x), found, **TOLERANCE)


def test_a_parametrized_projection_is_used(layer, x, call):
    expected = call(layer, x)
    nn.utils.parametrizations.weight_norm(layer.to_qkv)
    found = call(layer, x)
    torch.testing.assert_close(found, expected, **TOLERANCE)
    found.sum().backward()
    assert layer.to_qkv.parametrizations.weight.original0.grad.any()


def test_bags_are_the_same_alone_and_in_a_batch(layer, x, call):
    layer.to_qkv.register_forward_hook(lambda *_: None)
    together = call(layer, x).reshape(2, -1, 8)
    alone = torch.stack([layer(x[i : i + 1])[0] for i in range(2)])
    assert torch.equal(together, alone[:, : together.shape[1]])
