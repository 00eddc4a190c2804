"""The thin pseudo-inverse and its hand-written gradients against autograd of the reference."""

from __future__ import annotations

import pytest
import torch
from builders.errors import assert_near, relative_error

from gimp_fast.ops.pinv import pinv_matmul_bwd, pinv_matmul_fwd
from gimp_fast.reference.nystrom_attention import pinv_reference


def inputs(gain=1.0, count=3, m=24, d=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(count, m, m, generator=generator, dtype=torch.float64) * gain
    w, grad = torch.randn(2, count, m, d, generator=generator, dtype=torch.float64)
    return scores.softmax(-1).to(dtype), w.to(dtype), grad.to(dtype)


def expected_of(a, w, grad, iterations):
    a, w = (x.double().requires_grad_() for x in (a, w))
    out = pinv_reference(a, iterations) @ w
    return [out, *torch.autograd.grad(out, (a, w), grad.double(), allow_unused=True)]


@pytest.mark.parametrize("iterations", [0, 1, 2, 3, 4, 6, 9])
@pytest.mark.parametrize("gain", [0.5, 3.0], ids=["ill-conditioned", "well-conditioned"])
def test_output_and_gradients_are_those_of_the_reference(iterations, gain):
    a, w, grad = inputs(gain)
    found = [pinv_matmul_fwd(a, w, iterations), *pinv_matmul_bwd(grad, a, w, iterations)]
    assert_near(found, expected_of(a, w, grad, iterations), 1e-9)


def plain_order(a, w, grad, iterations):
    """Output and gradients by autograd of the definition, in the dtype of ``a``."""
    a, w = a.clone().requires_grad_(), w.clone().requires_grad_()
    out = pinv_reference(a, iterations) @ w
    return [out, *torch.autograd.grad(out, (a, w), grad)]


@pytest.mark.parametrize("iterations", [6, 20])
@pytest.mark.parametrize("m", [24, 256], ids=["small", "large"])
def test_fp32_errors_are_those_of_the_plain_order(iterations, m):
    """In the median of ten matrices: which order has luck with one differs between processors.

    Of each matrix the error is at most what its condition makes of one rounding.
    """
    count = 10
    matrices = inputs(3.0, count=count, m=m, d=64, dtype=torch.float32)
    ratios = []
    for i in range(count):
        a, w, grad = (x[i : i + 1] for x in matrices)
        found = [pinv_matmul_fwd(a, w, iterations), *pinv_matmul_bwd(grad, a, w, iterations)]
        results = found, plain_order(a, w, grad, iterations)
        expected = expected_of(a, w, grad, iterations)
        errors, peers = (list(map(relative_error, result, expected)) for result in results)
        rounded = torch.linalg.cond(a.double()).item() * torch.finfo(a.dtype).eps
        for error, peer in zip(errors, peers, strict=True):
            assert error <= max(3 * peer, rounded)
        ratios.append([error / peer for error, peer in zip(errors, peers, strict=True)])
    assert torch.tensor(ratios).median(0).values.max() <= 3


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
