"""Bilinear fusion: each product by hand, gates, skip connection, gradients."""

from __future__ import annotations

import pytest
import torch

from gimp_fast.nn.bilinear_fusion import BilinearFusion

CASES = [(gate, skip) for gate in ("linear", "bilinear") for skip in (False, True)]
IDS = [f"{gate}-{'skip' if skip else 'plain'}" for gate, skip in CASES]
by_kind = pytest.mark.parametrize(("gate", "skip"), CASES, ids=IDS)


def make(gate, skip, dropout=0.0, dims=(4, 3)):
    torch.manual_seed(0)
    return BilinearFusion(dims, 5, 6, gate=gate, skip=skip, dropout=dropout).double()


def affine(linear, x):
    return linear.weight @ x + linear.bias


def by_hand(fusion, first, second):
    """One pair of vectors, product after product."""
    if fusion.gate == "linear":
        read = torch.cat([first, second])
    else:
        read = torch.stack([a * b for a in first for b in second])
    gated = []
    for branch, vector in ((fusion.first, first), (fusion.second, second)):
        gate = 1 / (1 + (-affine(branch.gate, read)).exp())
        hidden = affine(branch.hidden, vector).clamp(min=0)
        reduced = affine(branch.out, gate * hidden).clamp(min=0)
        gated.append([*reduced, torch.tensor(1.0, dtype=torch.float64)])
    products = torch.stack([a * b for a in gated[0] for b in gated[1]])
    fused = affine(fusion.products[1], products).clamp(min=0)
    if fusion.skip:
        fused = torch.cat([fused, first, second])
    return affine(fusion.out[0], fused).clamp(min=0)


@by_kind
def test_equals_every_product_written_out(gate, skip):
    fusion = make(gate, skip).eval()
    first, second = torch.randn(7, 4).double(), torch.randn(7, 3).double()
    found = fusion(first, second)
    assert found.any()
    for row, a, b in zip(found, first, second, strict=True):
        torch.testing.assert_close(row, by_hand(fusion, a, b))


@by_kind
def test_gradients_are_those_of_finite_differences(gate, skip):
    fusion = make(gate, skip).eval()
    inputs = [torch.randn(2, n).double().requires_grad_() for n in (4, 3)]
    assert torch.autograd.gradcheck(fusion, inputs)


@by_kind
def test_every_parameter_gets_a_gradient(gate, skip):
    fusion = make(gate, skip, dropout=0.1).train()
    fusion(torch.randn(16, 4).double(), torch.randn(16, 3).double()).sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in fusion.parameters())


@by_kind
def test_widths_of_one(gate, skip):
    fusion = make(gate, skip, dims=(1, 1))
    assert fusion(torch.ones(1, 1).double(), torch.ones(1, 1).double()).shape == (1, 6)
