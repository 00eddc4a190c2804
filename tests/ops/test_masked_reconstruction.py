"""Masked reconstruction against its fp64 specification: values, every gradient, masks, chunks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from builders.dtypes import dtype_id
from builders.errors import assert_near, assert_no_worse
from builders.masks import make_mask

from gimp_fast.ops import masked_l1_loss, masked_reconstruction_loss
from gimp_fast.ops.masked_reconstruction import masked_reconstruction_fwd
from gimp_fast.reference.masked_reconstruction import masked_reconstruction_reference

SHAPES = [(1,), (63,), (257,), (2, 63), (2, 3, 5)]
# (d, C): one channel, odd, large enough for the fast products of some processors.
WIDTHS = [(1, 1), (7, 13), (64, 128)]
HALVES = [torch.bfloat16, torch.float16]


def sample_inputs(shape=(2, 63), widths=(7, 13), dtype=torch.float32, mask="random", bias=True):
    """Tokens, weight, bias, target and mask.

    No distance is so near to zero that the order of a sum decides its sign, and so the gradient.
    """
    d, channels = widths
    generator = torch.Generator().manual_seed(channels)

    def normal(*size):
        return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)

    tokens, weight = normal(*shape, d), normal(channels, d)
    bias = normal(channels) if bias else None
    wide = None if bias is None else bias.double()
    decoded = F.linear(tokens.double(), weight.double(), wide)
    distance = normal(*shape, channels) - decoded
    target = decoded + torch.where(distance < 0, distance - 0.01, distance + 0.01)
    tensors = [x if x is None else x.requires_grad_() for x in (tokens, weight, bias)]
    return (*tensors, target.to(dtype), make_mask(mask, shape, generator))


def leaves(inputs):
    return [x for x in inputs[:3] if x is not None]


def with_gradients(loss, inputs, **options):
    value = loss(*inputs, **options)
    return [value, *torch.autograd.grad(value, leaves(inputs))]


def specification(inputs, reduction):
    wide = [
        x if x is None or x.dtype == torch.bool else x.detach().double().requires_grad_(i < 3)
        for i, x in enumerate(inputs)
    ]
    return with_gradients(masked_reconstruction_reference, wide, reduction=reduction)


def assert_close(found, expected, rtol):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        size = b.abs().max().item() if b.numel() else 0.0
        torch.testing.assert_close(a.double(), b, rtol=rtol, atol=rtol * size)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=dtype_id)
@pytest.mark.parametrize("widths", WIDTHS, ids=lambda w: f"d{w[0]}-C{w[1]}")
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "N" + "x".join(map(str, s)))
def test_matches_specification(shape, widths, dtype):
    inputs = sample_inputs(shape, widths, dtype)
    found = with_gradients(masked_reconstruction_loss, inputs)
    assert [x.dtype for x in found] == [dtype] * 4
    assert_close(found, specification(inputs, "mean"), 1e-12 if dtype == torch.float64 else 2e-6)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("mask", ["none", "random", "all"])
def test_masks_from_none_to_all(mask, reduction, bias):
    inputs = sample_inputs(mask=mask, bias=bias)
    found = with_gradients(masked_reconstruction_loss, inputs, reduction=reduction)
    assert_close(found, specification(inputs, reduction), 2e-6)


def test_nothing_masked_is_zero_and_so_are_all_gradients():
    for x in with_gradients(masked_reconstruction_loss, sample_inputs(mask="none")):
        assert not x.any()


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3)], ids=str)
def test_empty_tensors_give_zero(shape):
    inputs = sample_inputs(shape)
    found = with_gradients(masked_reconstruction_loss, inputs)
    assert [x.shape for x in found[1:]] == [x.shape for x in leaves(inputs)]
    assert not any(x.any() for x in found)


@pytest.mark.parametrize("chunk_rows", [1, 5, 64, 10_000])
def test_chunks_change_nothing_but_rounding(chunk_rows):
    inputs = sample_inputs((3, 41), dtype=torch.float64)
    found = with_gradients(masked_reconstruction_loss, inputs, chunk_rows=chunk_rows)
    assert_close(found, specification(inputs, "mean"), 1e-12)


def test_masked_rows_alone_give_the_same():
    tokens, weight, bias, target, mask = sample_inputs()
    found = with_gradients(masked_reconstruction_loss, (tokens, weight, bias, target, mask))
    alone = tokens.detach()[mask].requires_grad_()
    loss = masked_reconstruction_loss(alone, weight, bias, target, mask)
    gradient, *others = torch.autograd.grad(loss, [alone, weight, bias])
    for a, b in zip([loss, *others, gradient], [found[0], *found[2:], found[1][mask]], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2), ()], ids=str)
def test_only_the_gradients_asked_for(wanted):
    inputs = sample_inputs()
    expected = with_gradients(masked_reconstruction_loss, inputs)
    for i, x in enumerate(leaves(inputs)):
        x.requires_grad_(i in wanted)
    loss = masked_reconstruction_loss(*inputs)
    assert torch.equal(loss, expected[0])
    assert loss.requires_grad == bool(wanted)
    asked = [inputs[i] for i in wanted]
    found = torch.autograd.grad(loss, asked) if asked else ()
    for i, gradient in zip(wanted, found, strict=True):
        assert torch.equal(gradient, expected[i + 1])


def test_without_gradients_nothing_is_kept():
    with torch.no_grad():
        loss = masked_reconstruction_loss(*sample_inputs())
    assert loss.grad_fn is None


def test_rows_that_are_not_masked_are_never_looked_at():
    inputs = tokens, *_, target, mask = sample_inputs()
    clean = with_gradients(masked_reconstruction_loss, inputs)
    with torch.no_grad():
        tokens[~mask], target[~mask] = float("nan"), float("inf")
    found = with_gradients(masked_reconstruction_loss, inputs)
    for a, b in zip(found, clean, strict=True):
        assert torch.equal(a, b)
    assert not found[1][~mask].any()


def test_the_gradient_of_an_exact_reconstruction_is_zero():
    inputs = sample_inputs(dtype=torch.float64, mask="all")
    tokens, weight, bias, _, mask = inputs
    target = F.linear(tokens, weight, bias).detach()
    for x in with_gradients(masked_reconstruction_loss, (tokens, weight, bias, target, mask)):
        assert x.abs().max() <= 1e-12


def test_gradcheck():
    inputs = sample_inputs((2, 5), (3, 4), torch.float64)
    assert torch.autograd.gradcheck(
        lambda *x: 3 * masked_reconstruction_loss(*x, *inputs[3:], reduction="sum"), inputs[:3]
    )


@pytest.mark.parametrize("dtype", HALVES, ids=dtype_id)
def test_half_precision_is_as_good_as_the_composition(dtype):
    inputs = sample_inputs((2, 300), (32, 64), dtype)
    expected = specification(inputs, "mean")

    def composed(tokens, weight, bias, target, mask):
        decoded = F.linear(tokens, weight, bias)
        return masked_l1_loss(decoded, target, mask, backend="torch")

    found = with_gradients(masked_reconstruction_loss, inputs)
    assert [x.dtype for x in found] == [torch.float32, dtype, dtype, dtype]
    assert_no_worse(found, with_gradients(composed, inputs), expected, factor=2)


@pytest.mark.parametrize("dtype", HALVES, ids=dtype_id)
def test_autocast_multiplies_in_its_type_and_adds_up_in_fp32(dtype):
    inputs = sample_inputs((2, 300), (32, 64))
    with torch.autocast("cpu", dtype):
        loss = masked_reconstruction_loss(*inputs, chunk_rows=100)
    found = [loss, *torch.autograd.grad(loss, leaves(inputs))]
    assert [x.dtype for x in found] == [torch.float32] * 4
    rounded = [x.detach().to(dtype).float().requires_grad_() for x in inputs[:3]]
    expected = specification((*rounded, *inputs[3:]), "mean")
    assert_near(found, expected, 3e-2)


def test_autocast_takes_tokens_of_its_type():
    inputs = list(sample_inputs())
    inputs[0] = inputs[0].detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = masked_reconstruction_loss(*inputs)
    found = torch.autograd.grad(loss, leaves(inputs))
    assert [x.dtype for x in found] == [torch.bfloat16, torch.float32, torch.float32]


def test_bitwise_repeatable():
    inputs = sample_inputs((501,), (64, 128))
    first = with_gradients(masked_reconstruction_loss, inputs, chunk_rows=50)
    for _ in range(3):
        again = with_gradients(masked_reconstruction_loss, inputs, chunk_rows=50)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_graph_can_be_used_again():
    inputs = sample_inputs()
    loss = masked_reconstruction_loss(*inputs)
    first = torch.autograd.grad(loss, leaves(inputs), retain_graph=True)
    again = torch.autograd.grad(2 * loss, leaves(inputs))
    for a, b in zip(first, again, strict=True):
        torch.testing.assert_close(2 * a, b)


def test_a_second_derivative_is_refused():
    inputs = sample_inputs()
    loss = masked_reconstruction_loss(*inputs)
    with pytest.raises(NotImplementedError, match="differentiable once"):
        torch.autograd.grad(loss, inputs[0], create_graph=True)


def test_torch_func_takes_its_gradient():
    tokens, weight, bias, target, mask = sample_inputs()
    expected = with_gradients(masked_reconstruction_loss, (tokens, weight, bias, target, mask))
    found = torch.func.grad(lambda x: masked_reconstruction_loss(x, weight, bias, target, mask))
    torch.testing.assert_close(found(tokens.detach()), expected[1])


@pytest.mark.parametrize("alone", [False, True], ids=["all-rows", "masked-rows"])
def test_compiles_to_one_graph(alone):
    inputs = list(sample_inputs())
    if alone:
        inputs[0] = inputs[0].detach()[inputs[4]].requires_grad_()
    compiled = torch.compile(
        lambda x, *rest: masked_reconstruction_loss(2 * x, *rest),
        fullgraph=True,
        backend="aot_eager",
    )
    expected = with_gradients(lambda x, *rest: masked_reconstruction_loss(2 * x, *rest), inputs)
    torch.testing.assert_close(with_gradients(compiled, inputs), expected)


@pytest.mark.parametrize(
    "wanted", [[True] * 3, [False, True, False]], ids=["all-gradients", "weight"]
)
def test_opcheck(wanted):
    inputs = sample_inputs()
    for x, wants in zip(inputs[:3], wanted, strict=True):
        x.requires_grad_(wants)
    torch.library.opcheck(masked_reconstruction_fwd, (*inputs, 10, torch.float32, wanted))


BAD = {
    "reduction": (dict(reduction="none"), "reduction is 'none'; expected one of"),
    "chunk": (dict(chunk_rows=0), "chunk_rows is 0; expected at least 1"),
    "weight": (dict(weight=torch.zeros(3, 5)), r"got \(4, 2\) and \(3, 5\)"),
    "bias": (dict(bias=torch.zeros(2)), r"bias is \(2,\); expected \(3,\)"),
    "mask dtype": (dict(mask=torch.ones(4)), "mask is torch.float32; expected torch.bool"),
    "target": (dict(target=torch.zeros(4, 2)), r"target is \(4, 2\); .*\(4, 3\)"),
    "tokens": (dict(tokens=torch.zeros(2, 2, 2)), r"tokens is \(2, 2, 2\); expected \(4, 2\)"),
    "rows": (dict(tokens=torch.zeros(5, 2)), r"tokens has 5 rows; expected \(4,\), or the 4"),
    "target gradient": (dict(target=torch.zeros(4, 3, requires_grad=True)), "requires a gradient"),
    "integers": (dict(target=torch.zeros(4, 3, dtype=torch.int64)), "target torch.int64"),
    "weight dtype": (dict(weight=torch.zeros(3, 2).double()), "weight is torch.float64"),
    "device": (dict(target=torch.zeros(4, 3, device="meta")), "target is on meta"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_what_does_not_fit_is_named(case):
    change, message = BAD[case]
    arguments = dict(
        tokens=torch.zeros(4, 2),
        weight=torch.zeros(3, 2),
        bias=torch.zeros(3),
        target=torch.zeros(4, 3),
        mask=torch.ones(4, dtype=torch.bool),
    )
    with pytest.raises(ValueError, match=message):
        masked_reconstruction_loss(**(arguments | change))
