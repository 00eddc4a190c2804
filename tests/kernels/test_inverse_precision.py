"""Why fp16 operands are enough for the pseudo-inverse of bf16 inputs, and that they fit fp16."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from builders.attention import (
    clustered_projections,
    loss_weight,
    outputs_and_gradients,
    random_projections,
    split,
)
from builders.errors import assert_no_worse, attention_sizes, relative_error

from gimp_fast.ops import nystrom_attention
from gimp_fast.reference.nystrom_attention import (
    landmarks_reference,
    nystrom_attention_reference,
    pinv_reference,
)

pytest.importorskip("triton")
from gimp_fast.kernels import launch as launching
from gimp_fast.kernels import pinv_range
from gimp_fast.kernels.bags import Bags
from gimp_fast.kernels.pinv import pinv_matmul_bwd, pinv_matmul_fwd

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
N, H, D, M = 768, 1, 32, 128
LARGEST_HALF = torch.finfo(torch.float16).max
STEPS = launching.LONGEST_HALF_CHAIN


def to_half(x):
    return x.half().float()


def truncated(x):
    """fp32 as a TF32 tensor core reads it: ten bits of mantissa."""
    return (x.contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32)


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b, rounded):
        ctx.rounded = rounded
        ctx.save_for_backward(rounded(a), rounded(b))
        return rounded(a) @ rounded(b)

    @staticmethod
    def backward(ctx, grad):
        a, b = ctx.saved_tensors
        return ctx.rounded(grad) @ b.mT, a.mT @ ctx.rounded(grad), None


def inverse_as_in_the_kernels(a, w, rounded=to_half):
    """Four steps that build Z, two that never form it, operands of every product rounded."""

    def product(a, b):
        return Product.apply(a, b, rounded)

    z = a.mT / (a.sum(-1).amax(-1) * a.sum(-2).amax(-1))[..., None, None]
    for _ in range(4):
        x = product(a, z)
        t = 7 * x - product(x, x)
        z = 0.25 * (13 * z - product(z, 15 * x - product(x, t)))
    first = product(a, z)
    s = product(first, first)
    second = 0.25 * (13 * first - 15 * s + product(s, 7 * first - s))
    for x in (second, first):
        w = 0.25 * (13 * w - product(x, 15 * w - product(x, 7 * w - product(x, w))))
    return product(z, w)


def composition(q, k, v, inverse):
    """What one writes in torch, with this inverse in fp32: ``inverse(A, W)`` is Z W."""
    scale = D**-0.5
    q_marks, k_marks = (landmarks_reference(x.float(), M).to(x.dtype) for x in (q, k))
    a = (q_marks.float() * scale @ k_marks.float().mT).softmax(-1)
    values = ((q_marks * scale) @ k.mT).softmax(-1) @ v
    mixed = inverse(a, values.float()).to(q.dtype)
    return ((q * scale) @ k_marks.mT).softmax(-1) @ mixed


def projections(kind):
    if kind == "clustered":
        return clustered_projections(torch.arange(N) * 9 // N, H, D, gain=2, noise=0.05)
    return random_projections(1, N, H, D, gain=2.0 if kind == "peaked" else 1.0)


@pytest.mark.parametrize("kind", ["random", "peaked", "clustered"])
def test_bf16_loses_nothing_to_operands_in_fp16(kind):
    qkv = projections(kind)
    inputs, exact = split(qkv, torch.bfloat16), split(qkv.bfloat16().double())
    expected = outputs_and_gradients(nystrom_attention_reference, exact, num_landmarks=M)
    plain, found = (
        outputs_and_gradients(composition, inputs, inverse=inverse)
        for inverse in (lambda a, w: pinv_reference(a, STEPS) @ w, inverse_as_in_the_kernels)
    )
    sizes = attention_sizes(expected, exact, loss_weight(exact))
    assert_no_worse(found, plain, expected, 1.1, sizes)


@pytest.mark.parametrize("kind", ["random", "peaked", "clustered"])
def test_bf16_errs_at_most_twice_as_much_as_the_torch_backend(kind):
    """As in the kernels, all but the operands of the inverse is in fp32 until the end."""
    qkv = projections(kind)
    inputs, exact = split(qkv, torch.bfloat16), split(qkv.bfloat16().double())
    expected = outputs_and_gradients(nystrom_attention_reference, exact, num_landmarks=M)
    peer = outputs_and_gradients(nystrom_attention, inputs, backend="torch", num_landmarks=M)

    def in_fp32(*inputs):
        out = composition(*(x.float() for x in inputs), inverse_as_in_the_kernels)
        return out.to(torch.bfloat16)

    found = outputs_and_gradients(in_fp32, inputs)
    sizes = attention_sizes(expected, exact, loss_weight(exact))
    assert_no_worse(found, peer, expected, 2, sizes)


def scores(kind, marks, count=1):
    """What A is the softmax of, (count, M, M) in fp32."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, marks, marks, generator=generator)
    at = torch.linspace(0, 1, marks)
    cluster = torch.arange(marks) * 5 // marks
    return {
        "random": noise,
        "peaked": 4 * noise,
        "clustered": 2 * noise[:, cluster][:, :, cluster] + 0.05 * noise,
        "near-singular": -200 * (at[:, None] - at) ** 2 + 1e-3 * noise,
        "one-large-column": noise + 9 * (at == 0),
        "near-identity": noise + 6 * torch.eye(marks),
    }[kind]


KINDS = ["random", "peaked", "clustered", "near-singular", "one-large-column", "near-identity"]


def narrow(marks, dim=16, count=1, outlier=1.0):
    """W and the gradient of Z W, whose first entry may be larger than all others."""
    generator = torch.Generator().manual_seed(1)
    w, grad = torch.randn(2, count, marks, dim, generator=generator)
    grad[:, 0, 0] *= outlier
    return w, grad


def results(inverse, s, w, grad):
    """Z W, and the gradients of the scores and of W.

    A's own gradient is not compared: which row has the largest sum is a matter of rounding, as all
    sums are one. The softmax leaves out what that changes.
    """
    s, w = s.clone().requires_grad_(), w.clone().requires_grad_()
    out = inverse(s.softmax(-1), w)
    return [out.detach(), *torch.autograd.grad(out, (s, w), grad)]


def exact_results(*inputs):
    return results(lambda a, w: pinv_reference(a, STEPS) @ w, *(x.double() for x in inputs))


@pytest.mark.parametrize("kind", KINDS)
def test_no_error_is_above_that_of_truncated_tf32(kind):
    inputs = [scores(kind, M, count=4), *narrow(M, count=4)]
    expected = exact_results(*inputs)
    errors, truncations = (
        list(
            map(
                relative_error,
                results(partial(inverse_as_in_the_kernels, rounded=f), *inputs),
                expected,
            )
        )
        for f in (to_half, truncated)
    )
    assert all(x < y for x, y in zip(errors, truncations, strict=True)), (errors, truncations)


def of_kernels(a, w, grad, precision="fp16", iterations=STEPS):
    """Z W and the gradients of A and W by the kernels; each matrix is a bag of one head."""
    a, w, grad = (x[:, None].contiguous().to(DEVICE) for x in (a, w, grad))
    bags = Bags(len(a), a.shape[-1] + 1, None)
    rest = (iterations, bags, launching.architecture(a.device), precision)
    found = [pinv_matmul_fwd(a, w, *rest), *pinv_matmul_bwd(grad, a, w, *rest)]
    return [x[:, 0].cpu() for x in found]


@pytest.mark.slow
@pytest.mark.triton
@pytest.mark.parametrize("outlier", [1.0, 1e4], ids=["even", "outlier"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_kernels_err_at_most_twice_as_much_as_truncated_tf32(kind, outlier):
    s, w, grad = scores(kind, 40), *narrow(40, outlier=outlier)
    expected = exact_results(s, w, grad)
    a = s.softmax(-1)
    out, grad_a, grad_w = of_kernels(a, w, grad)
    weighted = a * grad_a
    found = [out, weighted - a * weighted.sum(-1, keepdim=True), grad_w]
    peer = results(partial(inverse_as_in_the_kernels, rounded=truncated), s, w, grad)
    assert_no_worse(found, peer, expected, 2)


@pytest.mark.triton
@pytest.mark.skipif(torch.cuda.is_available(), reason="not all tiles fit every GPU")
@pytest.mark.parametrize("capability", [80, 90, 100])
def test_tiles_of_a_gpu_cover_matrices_of_odd_sizes(capability, monkeypatch):
    """Of 150 rows, the second tile of 128 has 22; other tiles only add up in another order."""
    a = scores("random", 150).softmax(-1)
    w, grad = narrow(150, dim=70)
    expected = of_kernels(a, w, grad, iterations=3)
    arch = launching.ARCHITECTURES[capability]
    monkeypatch.setattr(launching, "architecture", lambda device: arch)
    found = of_kernels(a, w, grad, iterations=3)
    assert all(relative_error(x, y) < 1e-3 for x, y in zip(found, expected, strict=True))


def small_inputs():
    """A, W and the gradient of Z W."""
    return scores("random", 16).softmax(-1), *narrow(16)


@pytest.mark.triton
@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("exponents", [(100, -100), (-90, 90), (20, 0)], ids=str)
def test_powers_of_two_change_no_bit(exponents, iterations):
    """W and the gradient may be of any size: both are scaled before products read them."""
    of_w, of_grad = exponents
    a, w, grad = small_inputs()
    plain = of_kernels(a, w, grad, iterations=iterations)
    found = of_kernels(a, w * 2.0**of_w, grad * 2.0**of_grad, iterations=iterations)
    factors = [2.0**of_w, 2.0 ** (of_w + of_grad), 2.0**of_grad]
    assert all(torch.equal(x, y * f) for x, y, f in zip(found, plain, factors, strict=True))


@pytest.mark.triton
def test_a_matrix_is_bitwise_the_same_alone_and_beside_a_larger_one():
    a = scores("random", 16, count=2).softmax(-1)
    w, grad = narrow(16, count=2)
    w[1] *= 1e20
    grad[1] *= 1e-9
    both = of_kernels(a, w, grad, iterations=3)
    for i in range(2):
        alone = of_kernels(a[i : i + 1], w[i : i + 1], grad[i : i + 1], iterations=3)
        assert all(torch.equal(x, y[i : i + 1]) for x, y in zip(alone, both, strict=True))


@pytest.mark.triton
def test_no_gradient_gives_none():
    a, w, _ = small_inputs()
    _, grad_a, grad_w = of_kernels(a, w, torch.zeros_like(w), iterations=3)
    assert not grad_a.any()
    assert not grad_w.any()


@pytest.mark.triton
@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan], ids=str)
def test_a_gradient_that_is_not_finite_spoils_its_channel_only(bad):
    a, w, grad = small_inputs()
    plain = of_kernels(a, w, grad, iterations=3)
    grad[0, 2, 5] = bad
    found = of_kernels(a, w, grad, iterations=3)
    others = torch.arange(16) != 5
    assert not found[1].isfinite().any()
    assert not found[2][..., 5].isfinite().any()
    assert torch.equal(found[2][..., others], plain[2][..., others])


def step(x):
    return x * (13 - 15 * x + 7 * x**2 - x**3) / 4


def largest_z(steps):
    """The largest singular value that Z can have after so many steps, of any A."""
    first = torch.logspace(-8, 0, 100_001, dtype=torch.float64)
    x = first
    for _ in range(steps):
        x = step(x)
    return (x / first.sqrt()).max().item()


def test_every_operand_fits_fp16():
    """The bounds of ``pinv_range``, for matrices of the norm that W and the gradient may have."""
    norm, shrink = 2.0**pinv_range.NORM_BITS.value, pinv_range.SHRINK.value
    x = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    slope = (step(x).diff() / x.diff()).max().item()
    assert slope <= 13 / 4
    assert (15 - 7 * x + x**2).max() <= 15
    thin = [15 * slope * norm, slope * largest_z(STEPS - 2) / 4 * norm]
    # Of X, after each step backwards: 15/4 z times the gradient of the next Z.
    classic = [
        15 / 4 * largest_z(STEPS - 3 - back) * slope ** (2 + back) * norm**2 * shrink
        for back in range(STEPS - 2)
    ]
    # Of the last thin X, and, with the products of a thin step backwards, of the first.
    last = 15 * slope * largest_z(STEPS - 2) / 4 * norm**2 * shrink
    first = [(6 / 4 + 15 / 4 + 1 / 4) * last, (slope + 1) * last]
    assert max(thin + classic + first) <= LARGEST_HALF


def test_long_chains_stay_in_fp32():
    arch = launching.ARCHITECTURES[90]
    found = [launching.inverse_precision(arch, torch.bfloat16, steps) for steps in (6, 7)]
    assert found == ["fp16", "tf32x3"]
    assert launching.inverse_precision(arch, torch.float16, 6) == "tf32x3"
