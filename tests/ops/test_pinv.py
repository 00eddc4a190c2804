"""The thin pseudo-inverse and its hand-written gradients against autograd of the reference."""

from __future__ import annotations

import pytest
import torch

from gimp_fast.ops.pinv import pinv_matmul_bwd, pinv_matmul_fwd
from gimp_fast.reference.nystrom_attention import pinv_reference


def inputs(gain=1.0, m=24, d=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(3, m, m, generator=generator, dtype=torch.float64) * gain
    w, grad = torch.randn(2, 3, m, d, generator=generator, dtype=torch.float64)
    return scores.softmax(-1).to(dtype), w.to(dtype), grad.to(dtype)


def expected_of(a, w, grad, iterations):
    a, w = (x.double().requires_grad_() for x in (a, w))
    out = pinv_reference(a, iterations) @ w
    return [out, *torch.autograd.grad(out, (a, w), grad.double(), allow_unused=True)]


def relative_error(found, expected):
    return ((found.double() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("iterations", [0, 1, 2, 3, 4, 6, 9])
@pytest.mark.parametrize("gain", [0.5, 3.0], ids=["ill-conditioned", "well-conditioned"])
def test_output_and_gradients_are_those_of_the_reference(iterations, gain):
    a, w, grad = inputs(gain)
    found = [pinv_matmul_fwd(a, w, iterations), *pinv_matmul_bwd(grad, a, w, iterations)]
    for x, y in zip(found, expected_of(a, w, grad, iterations), strict=True):
        assert relative_error(x, y) <= 1e-9


@pytest.mark.parametrize("iterations", [6, 20])
@pytest.mark.parametrize("m", [24, 256], ids=["MKL", "oneDNN where it is fast"])
def test_fp32_errors_are_those_of_the_plain_order(iterations, m):
    a, w, grad = (x[:1] for x in inputs(3.0, m=m, d=64, dtype=torch.float32))
    expected = expected_of(a, w, grad, iterations)
    found = [pinv_matmul_fwd(a, w, iterations), *pinv_matmul_bwd(grad, a, w, iterations)]
    a, w = a.requires_grad_(), w.requires_grad_()
    out = pinv_reference(a, iterations) @ w
    plain = [out, *torch.autograd.grad(out, (a, w), grad)]
    for x, y, z in zip(found, plain, expected, strict=True):
        assert relative_error(x, z) <= 3 * relative_error(y, z)


def test_equal_column_sums_share_the_gradient_of_their_maximum():
    a, w, grad = inputs(0.0)
    for x, y in zip(pinv_matmul_bwd(grad, a, w, 3), expected_of(a, w, grad, 3)[1:], strict=True):
        torch.testing.assert_close(x, y)


def test_converges_to_the_pseudo_inverse():
    a = inputs(2.0, m=16)[0]
    eye = torch.eye(16, dtype=torch.float64).expand(3, 16, 16)
    torch.testing.assert_close(
        pinv_matmul_fwd(a, eye, 30), torch.linalg.pinv(a), atol=1e-8, rtol=1e-8
    )
