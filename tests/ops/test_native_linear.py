"""The C++ linear layer: exact for any shape, the same for any number of rows and threads."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from builders.errors import assert_near
from builders.native import NATIVE, each_instruction_set, on_threads

from gimp_fast.ops import native_linear, products
from gimp_fast.ops.native_linear import LARGEST, LONGEST, linear, takes

pytestmark = pytest.mark.skipif(NATIVE != "available", reason=NATIVE)
# Rows, inputs, outputs: one of each, around a vector, a panel, a run of sums, a block of rows.
SHAPES = [
    (1, 1, 1), (3, 17, 5), (48, 96, 64), (97, 100, 50), (128, 65, 130), (129, 33, 200),
    (1000, 64, 49),
]  # fmt: skip


def inputs(rows, c, o, dtype=torch.float32):
    generator = torch.Generator().manual_seed(rows)
    shapes = ((rows, c), (o, c), (o,), (rows, o))
    *tensors, grad = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return [x.to(dtype).requires_grad_() for x in tensors], grad.to(dtype)


def results(function, tensors, grad):
    out = function(*tensors)
    return [out, *torch.autograd.grad(out, tensors, grad)]


@each_instruction_set
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_output_and_gradients_are_near_fp64(instruction_set, shape, bias):
    tensors, grad = inputs(*shape)
    exact, exact_grad = inputs(*shape, torch.float64)
    number = 2 + bias
    found = results(linear, tensors[:number], grad)
    assert_near(found, results(F.linear, exact[:number], exact_grad), 1e-6)


@each_instruction_set
@pytest.mark.parametrize("shape", [(300, 96, 50), (300, 100, 130)], ids=str)
def test_a_row_is_bitwise_the_same_among_any_other_rows_and_for_any_threads(instruction_set, shape):
    (x, weight, bias), grad = inputs(*shape)
    whole = results(linear, (x, weight, bias), grad)
    for rows in (1, 5, 17, 97, 113, 128, 129, 299):
        part = x.detach()[-rows:].requires_grad_()
        found = results(linear, (part, weight, bias), grad[-rows:])[:2]
        assert all(torch.equal(a, b[-rows:]) for a, b in zip(found, whole, strict=False))
    for threads in (1, 2, 5):
        with on_threads(threads):
            again = results(linear, (x, weight, bias), grad)
        assert all(torch.equal(a, b) for a, b in zip(again, whole, strict=True))


def test_any_strides_and_leading_dimensions():
    (x, weight, bias), grad = inputs(60, 24, 40)
    expected = results(linear, (x, weight, bias), grad)
    shaped = x.detach().view(3, 4, 5, 24).transpose(0, 1).contiguous().transpose(0, 1)
    strided = weight.detach().t().contiguous().t()
    leaves = (shaped.requires_grad_(), strided.requires_grad_(), bias)
    strided_grad = grad.view(3, 4, 5, 40).transpose(1, 2).contiguous().transpose(1, 2)
    found = results(linear, leaves, strided_grad)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a.reshape(b.shape), b)


@pytest.mark.parametrize("shape", [(0, 8, 4), (3, 0, 4), (3, 8, 0)], ids=str)
def test_nothing_to_multiply(shape):
    tensors, grad = inputs(*shape)
    found, expected = (results(f, tensors, grad) for f in (products.linear, F.linear))
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


def test_second_derivative():
    (x, weight, bias), grad = inputs(50, 24, 40)
    second = []
    for function in (linear, F.linear):
        first = torch.autograd.grad(function(x, weight, bias), x, grad, create_graph=True)[0]
        second.append(torch.autograd.grad(first.square().sum(), weight)[0])
    torch.testing.assert_close(*second, rtol=1e-5, atol=1e-4)


def test_only_the_gradients_that_are_wanted():
    (x, weight, bias), grad = inputs(20, 8, 4)
    out = linear(x.detach(), weight, bias.detach())
    out.backward(grad)
    assert x.grad is None
    torch.testing.assert_close(weight.grad, grad.t() @ x.detach())


def test_few_channels_or_few_rows_are_native():
    few, many = torch.empty(64, 64), torch.empty(LARGEST // 64 + 1, 64)
    assert takes(torch.empty(5000, 64), few)
    assert takes(torch.empty(LONGEST, 64), many)
    assert not takes(torch.empty(LONGEST + 1, 64), many)
    assert takes(torch.empty(5000, 64), many, longest=LONGEST)
    assert not takes(torch.empty(5, 64, dtype=torch.float64), few)
    assert not takes(torch.empty(5, 64), few.double())
    assert not takes(torch.empty(5, 64), few, torch.empty(64, dtype=torch.float64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not takes(torch.empty(5, 64), few)


def test_without_the_build_the_layer_is_that_of_torch(monkeypatch):
    from gimp_fast.nn.linear import Linear

    module, x = Linear(24, 40).eval(), torch.randn(7, 24)
    native = module(x)
    monkeypatch.setattr(native_linear, "takes", lambda *_: False)
    torch.testing.assert_close(module(x), native)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, w, b: (x.double(), w, b), "contiguous float32 CPU tensor of 2 dimensions"),
        (lambda x, w, b: (x[0], w, b), "contiguous float32 CPU tensor of 2 dimensions"),
        (lambda x, w, b: (x.t(), w, b), "contiguous float32 CPU tensor"),
        (lambda x, w, b: (x, w[:, :3].contiguous(), b), "x has 8 channels; the weight has 3"),
        (lambda x, w, b: (x, w, b[:2]), "bias and weight differ in length"),
    ],
    ids=["dtype", "dimensions", "strides", "channels", "bias"],
)
def test_what_does_not_fit_is_refused(change, message):
    tensors = (x.detach() for x in inputs(5, 8, 4)[0])
    with pytest.raises(RuntimeError, match=message):
        torch.ops.gimp_fast.linear_fwd(*change(*tensors))


def test_a_gradient_of_another_shape_is_refused():
    (x, weight, _), grad = inputs(5, 8, 4)
    with pytest.raises(RuntimeError, match="the gradient has another shape"):
        torch.ops.gimp_fast.linear_bwd(
            grad[:3].contiguous(), x.detach(), weight.detach(), True, True, True
        )
