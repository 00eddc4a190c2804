"""The linear layer is torch's, whichever library computes it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from builders.errors import assert_near

from gimp_fast.nn.linear import Linear
from gimp_fast.ops.products import linear

pytestmark = pytest.mark.usefixtures("library")


def inputs(rows, c=96, o=80, dtype=torch.float32):
    generator = torch.Generator().manual_seed(rows)
    shapes = ((1, rows, c), (o, c), (o,), (1, rows, o))
    *tensors, grad = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return [x.to(dtype).requires_grad_() for x in tensors], grad.to(dtype)


@pytest.mark.parametrize("rows", [1, 7, 1000, 1001, 2503])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_output_and_gradients(rows, bias):
    tensors, grad = inputs(rows)
    tensors = tensors[: 2 + bias]
    out = linear(*tensors)
    found = [out, *torch.autograd.grad(out, tensors, grad)]
    exact = [x.detach().double().requires_grad_() for x in tensors]
    out = F.linear(*exact)
    expected = [out, *torch.autograd.grad(out, exact, grad.double())]
    assert_near(found, expected, 1e-6)


def test_second_derivative():
    (x, weight, bias), grad = inputs(500)
    results = []
    for function in (linear, F.linear):
        first = torch.autograd.grad(function(x, weight, bias), x, grad, create_graph=True)[0]
        results.append(torch.autograd.grad(first.square().sum(), weight)[0])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-3)


def test_a_strided_gradient_and_autocast():
    (x, weight, bias), _ = inputs(900)
    found = torch.autograd.grad(linear(x, weight, bias).sum(), x)[0]
    torch.testing.assert_close(found, weight.sum(0).expand_as(x), rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16


def test_the_module_is_a_linear_layer_with_its_hooks_and_keys():
    module, twin = Linear(96, 80), torch.nn.Linear(96, 80)
    module.load_state_dict(twin.state_dict())
    seen = []
    module.register_forward_hook(lambda *_: seen.append(True))
    x = inputs(800)[0][0]
    torch.testing.assert_close(module(x), twin(x), rtol=1e-5, atol=1e-5)
    assert isinstance(module, torch.nn.Linear)
    assert seen == [True]
