"""A whole small layer in one call: bitwise what its three parts compute."""

from __future__ import annotations

import pytest
import torch
from builders.native import NATIVE, each_instruction_set, on_threads

from gimp_fast import native
from gimp_fast.nn import NystromAttention
from gimp_fast.ops import native_layer, native_linear
from gimp_fast.ops.nystrom_layer import nystrom_layer
from gimp_fast.ops.packing import Bags

HEADS, LANDMARKS, ITERATIONS = 2, 12, 6
NAMES = ("x", "weight_in", "weight_out", "bias", "filter")

pytestmark = pytest.mark.skipif(NATIVE != native.AVAILABLE, reason=NATIVE)


def tensors_of(b, n, channels=10, width=8, outputs=9, taps=5):
    """Operands by name, and the gradient of the output."""
    generator = torch.Generator().manual_seed(b * n)
    inner = HEADS * width
    shapes = ((b, n, channels), (3 * inner, channels), (outputs, inner), (outputs,))
    shapes = (*shapes, (HEADS, 1, taps, 1), (b, n, outputs))
    *operands, grad = (torch.randn(shape, generator=generator) for shape in shapes)
    return dict(zip(NAMES, operands, strict=True)), grad


def in_parts(x, weight_in, weight_out, bias, filter, bags):
    qkv = native_linear.linear(x, weight_in).unflatten(2, (3, HEADS, -1))
    settings = dict(num_landmarks=LANDMARKS, pinv_iterations=ITERATIONS, backend="native")
    attended = nystrom_layer(qkv, filter, cu_seqlens=bags, **settings)
    return native_linear.linear(attended, weight_out, bias)


def at_once(x, weight_in, weight_out, bias, filter, bags):
    settings = (HEADS, LANDMARKS, ITERATIONS)
    return native_layer.layer(x, weight_in, weight_out, bias, filter, bags, *settings)


def outputs_and_gradients(function, operands, grad, bags, wanted=NAMES):
    leaves = {
        name: None if x is None else x.clone().requires_grad_(name in wanted)
        for name, x in operands.items()
    }
    out = function(**leaves, bags=bags)
    out.backward(grad)
    return [out, *(None if x is None else x.grad for x in leaves.values())]


def assert_same(found, expected):
    for name, a, b in zip(("out", *NAMES), found, expected, strict=True):
        assert (a is None) == (b is None), name
        assert a is None or torch.equal(a, b), name


@each_instruction_set
@pytest.mark.parametrize("left_out", [(), ("bias",), ("filter",), ("bias", "filter")], ids=str)
@pytest.mark.parametrize(
    ("b", "n", "bounds"),
    [(1, 40, None), (3, 37, None), (1, 12, None), (2, 1, None), (1, 90, (0, 5, 5, 60, 90))],
)
def test_is_bitwise_its_parts(b, n, bounds, left_out, instruction_set):
    operands, grad = tensors_of(b, n)
    operands |= dict.fromkeys(left_out)
    bags = None if bounds is None else Bags(bounds, torch.tensor(bounds, dtype=torch.int32))
    expected = outputs_and_gradients(in_parts, operands, grad, bags)
    assert_same(outputs_and_gradients(at_once, operands, grad, bags), expected)
    with torch.no_grad():
        assert torch.equal(at_once(**operands, bags=bags), expected[0])


@pytest.mark.parametrize(
    ("channels", "width", "outputs", "taps"), [(64, 16, 64, 33), (33, 17, 65, 1), (1, 1, 1, 3)]
)
def test_other_widths(channels, width, outputs, taps):
    operands, grad = tensors_of(1, 150, channels, width, outputs, taps)
    expected = outputs_and_gradients(in_parts, operands, grad, None)
    assert_same(outputs_and_gradients(at_once, operands, grad, None), expected)


@pytest.mark.parametrize("n", [0, 50])
@pytest.mark.parametrize("wanted", [(), *((name,) for name in NAMES)], ids=str)
def test_only_the_gradients_that_are_wanted(wanted, n):
    operands, grad = tensors_of(1, n)
    if not wanted:
        assert not at_once(**operands, bags=None).requires_grad
        return
    found = outputs_and_gradients(at_once, operands, grad, None, wanted)
    everything = outputs_and_gradients(in_parts, operands, grad, None)
    expected = [everything[0]]
    expected += [
        g if name in wanted else None for name, g in zip(NAMES, everything[1:], strict=True)
    ]
    assert_same(found, expected)


def test_any_strides():
    operands, grad = tensors_of(2, 30)
    expected = outputs_and_gradients(at_once, operands, grad, None)
    strided = {name: x.mT.contiguous().mT if x.dim() > 1 else x for name, x in operands.items()}
    strided["filter"] = operands["filter"].flip(2).flip(2)
    assert not strided["x"].is_contiguous()
    wide = torch.randn(2, 30, 20)
    wide[..., :9] = grad
    assert_same(outputs_and_gradients(at_once, strided, wide[..., :9], None), expected)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_do_not_matter(threads):
    operands, grad = tensors_of(1, 3000, 32, 16, 32, 33)
    with on_threads(1):
        expected = outputs_and_gradients(at_once, operands, grad, None)
    with on_threads(threads):
        assert_same(outputs_and_gradients(at_once, operands, grad, None), expected)


def test_the_layer_makes_one_call_each_way(monkeypatch):
    layer = NystromAttention(16, dim_head=8, heads=2, num_landmarks=12)
    calls = []
    for name in ("nystrom_layer_fwd", "nystrom_layer_bwd"):
        call = getattr(torch.ops.gimp_fast, name)
        noted = lambda *a, name=name, call=call: calls.append(name) or call(*a)  # noqa: E731
        monkeypatch.setattr(torch.ops.gimp_fast, name, noted)
    for name in ("linear_fwd", "linear_bwd", "nystrom_native_fwd", "nystrom_native_bwd"):
        monkeypatch.setattr(torch.ops.gimp_fast, name, None)
    layer(torch.randn(2, 30, 16)).sum().backward()
    assert calls == ["nystrom_layer_fwd", "nystrom_layer_bwd"]


def test_there_is_one_derivative():
    operands, grad = tensors_of(1, 30)
    x = operands.pop("x").requires_grad_()
    out = at_once(x, **operands, bags=None)
    (of_x,) = torch.autograd.grad(out, x, grad.requires_grad_(), create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        of_x.sum().backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(30, 10)}, "x must be 3-D"),
        ({"x": torch.zeros(1, 30, 10).double()}, "x has another shape, dtype or layout"),
        ({"x": torch.zeros(1, 30, 11)}, "first weight has another shape"),
        ({"weight_in": torch.zeros(48, 11)}, "first weight has another shape"),
        ({"weight_out": torch.zeros(9, 15)}, "second weight has another shape"),
        ({"bias": torch.zeros(8)}, "bias has another shape"),
        ({"filter": torch.zeros(2, 1, 4, 1)}, "K odd"),
        ({"filter": torch.zeros(3, 1, 3, 1)}, "filter has another shape"),
        ({"bounds": [0, 31]}, "bounds must rise from 0"),
        ({"heads": 3}, "do not fit the heads"),
        ({"num_landmarks": 0}, "counts are wrong"),
        ({"iterations": -1}, "counts are wrong"),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, dict) else None,
)
def test_what_does_not_fit_is_refused(change, message):
    operands, _ = tensors_of(1, 30)
    settings = dict(bounds=[], heads=HEADS, num_landmarks=LANDMARKS, iterations=6, keeps=True)
    with pytest.raises(RuntimeError, match=message):
        torch.ops.gimp_fast.nystrom_layer_fwd(**(operands | settings | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grad": torch.zeros(1, 30, 8)}, "gradient has another shape"),
        ({"qkv": torch.zeros(1, 30, 47)}, "projection has another shape"),
        ({"attended": torch.zeros(1, 29, 16)}, "what was attended to has another shape"),
        ({"marks": torch.zeros(5)}, "marks has another shape"),
        ({"wants": [1, 1]}, "five gradients"),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, dict) else None,
)
def test_gradients_of_what_does_not_fit_are_refused(change, message):
    operands, grad = tensors_of(1, 30)
    settings = dict(bounds=[], heads=HEADS, num_landmarks=LANDMARKS, iterations=6)
    _, *saved = torch.ops.gimp_fast.nystrom_layer_fwd(**operands, **settings, keeps=True)
    operands.pop("bias")
    saved = dict(zip(("qkv", "attended", "marks"), saved, strict=True))
    arguments = {"grad": grad, "wants": [1] * 5} | operands | saved | settings
    with pytest.raises(RuntimeError, match=message):
        torch.ops.gimp_fast.nystrom_layer_bwd(**(arguments | change))
