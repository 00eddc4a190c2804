"""Dropout from uniform numbers: what it drops, scales and saves."""

from __future__ import annotations

import pytest
import torch

from gimp_fast.nn.uniform_dropout import UniformDropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_elements_are_dropped_or_scaled_and_their_gradients_too(dtype):
    torch.manual_seed(0)
    x = torch.full((400, 50), 3.0, dtype=dtype, requires_grad=True)
    out = UniformDropout(0.25)(x)
    out.sum().backward()
    assert out.dtype == x.grad.dtype == dtype
    kept = out != 0
    assert 0.74 < kept.double().mean() < 0.76
    torch.testing.assert_close(out, kept * 4 * torch.ones_like(x))
    torch.testing.assert_close(x.grad, kept * torch.full_like(x, 4 / 3))


def test_the_same_seed_drops_the_same():
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(UniformDropout(0.5)(torch.ones(100)))
    assert torch.equal(*results)


@pytest.mark.parametrize(("p", "expected"), [(0.0, 2.0), (1.0, 0.0)])
def test_none_and_all_are_dropped(p, expected):
    x = torch.full((5,), 2.0, requires_grad=True)
    out = UniformDropout(p)(x)
    out.sum().backward()
    assert out.tolist() == [expected] * 5
    assert x.grad.isfinite().all()


def test_nothing_is_dropped_in_eval_mode():
    x = torch.randn(7)
    assert UniformDropout(0.5).eval()(x) is x
