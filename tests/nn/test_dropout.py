"""Dropout: what it drops, scales and saves."""

from __future__ import annotations

import pytest
import torch

from gimp_fast.nn.dropout import Dropout

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_elements_are_dropped_or_scaled_and_their_gradients_too(dtype):
    torch.manual_seed(0)
    x = torch.full((401, 49), 3.0, dtype=dtype, requires_grad=True)
    out = Dropout(0.25)(x)
    out.sum().backward()
    assert out.dtype == x.grad.dtype == dtype
    kept = out != 0
    assert 0.74 < kept.double().mean() < 0.76
    torch.testing.assert_close(out, kept * 4 * torch.ones_like(x))
    torch.testing.assert_close(x.grad, kept * torch.full_like(x, 4 / 3))


def test_the_mean_stays():
    torch.manual_seed(2)
    assert abs(Dropout(0.1)(torch.ones(1_000_000)).mean() - 1) < 0.002


def test_the_same_seed_drops_the_same():
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(Dropout(0.5)(torch.ones(100)))
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ("p", "expected"), [(0.0, 2.0), (1e-7, 2.0), (1.0 - 1e-7, 0.0), (1.0, 0.0)]
)
def test_none_and_all_are_dropped(p, expected):
    torch.manual_seed(0)
    x = torch.full((5,), 2.0, requires_grad=True)
    out = Dropout(p)(x)
    out.sum().backward()
    assert out.tolist() == pytest.approx([expected] * 5)
    assert x.grad.isfinite().all()


def test_nothing_is_dropped_in_eval_mode():
    x = torch.randn(7)
    assert Dropout(0.5).eval()(x) is x


@pytest.mark.parametrize("shape", [(0, 3), (1,), (3, 5, 7)], ids=str)
def test_any_shape(shape):
    x = torch.randn(shape, requires_grad=True)
    out = Dropout(0.5)(x)
    out.sum().backward()
    assert out.shape == x.grad.shape == x.shape


def test_there_are_second_derivatives():
    x = torch.randn(50, dtype=torch.float64, requires_grad=True)

    def squared(x):
        torch.manual_seed(4)
        return Dropout(0.3)(x).square()

    assert torch.autograd.gradgradcheck(squared, x)


def test_saves_nothing():
    saved = []
    x = torch.randn(1000, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        Dropout(0.5)(x)
    assert not saved
