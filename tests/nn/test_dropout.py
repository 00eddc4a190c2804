"""Dropout that saves one byte per element, bitwise equal to torch's."""

from __future__ import annotations

import pytest
import torch

from gimp_fast.nn.nystrom_attention import Dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("p", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_equals_that_of_torch(p, dtype, training):
    x = torch.randn(50, 7).to(dtype).requires_grad_()
    results = []
    for kind in (Dropout, torch.nn.Dropout):
        torch.manual_seed(0)
        out = kind(p).train(training)(x)
        results.append((out, *torch.autograd.grad(out.float().sin().sum(), x), torch.rand(2)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_half_precision_drops_the_same_elements():
    x, results = torch.randn(500).bfloat16(), []
    for kind in (Dropout, torch.nn.Dropout):
        torch.manual_seed(0)
        results.append(kind(0.1)(x))
    torch.testing.assert_close(*results, rtol=2**-7, atol=0)  # torch rounds its factor


def test_saves_one_byte_per_element():
    saved = []
    x = torch.randn(1000, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        Dropout(0.5)(x)
    assert sum(t.nbytes for t in saved) == 1000
