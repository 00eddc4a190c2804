"""The convolution along tokens against torch's Conv2d: values, gradients, bags, bad input."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from builders.dtypes import dtype_id

from gimp_fast.ops.token_conv import (
    BLOCK_CPU,
    token_conv,
    token_conv_fwd,
    token_conv_weight_grad,
)

# (B, H, N, D, K): one token; shorter than the filter; around one block and more; K = 1.
SHAPES = [
    (1, 1, 1, 4, 33),
    (2, 3, 7, 5, 33),
    (1, 2, BLOCK_CPU - 1, 8, 33),
    (1, 2, BLOCK_CPU, 8, 9),
    (2, 2, BLOCK_CPU + 1, 8, 33),
    (1, 2, 3 * BLOCK_CPU + 5, 3, 33),
    (1, 4, 100, 8, 1),
]
SHAPE_IDS = [f"B{b}-H{h}-N{n}-D{d}-K{k}" for b, h, n, d, k in SHAPES]
# Relative to the largest element; the sums have 33 terms, those of the weights thousands.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 1e-2, torch.float16: 1e-3}


def sample_inputs(b, h, n, d, k, dtype=torch.float64, seed=0):
    """The values are one third of a (B, N, 3, H, D) tensor, as a qkv layer gives them."""
    generator = torch.Generator().manual_seed(seed)
    qkv, weight, add = (
        torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)
        for size in ((b, n, 3, h, d), (h, 1, k, 1), (b, h, n, d))
    )
    return [x.detach().requires_grad_() for x in (qkv[:, :, 2].transpose(1, 2), weight, add)]


def conv2d(v, weight, add):
    return add + F.conv2d(v, weight, padding=(weight.shape[2] // 2, 0), groups=weight.shape[0])


def with_gradients(function, inputs):
    out = function(*inputs)
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
    return [out, *torch.autograd.grad(out, inputs, grad)]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=dtype_id)
@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_IDS)
def test_equals_conv2d_in_fp64(shape, dtype):
    inputs = sample_inputs(*shape, dtype=dtype)
    found = with_gradients(lambda v, w, a: token_conv(v, w, add=a), inputs)
    expected = with_gradients(conv2d, [x.detach().double().requires_grad_() for x in inputs])
    for name, a, b in zip(["out", "dv", "dweight", "dadd"], found, expected, strict=True):
        assert a.dtype == dtype
        assert (a - b).abs().max() <= TOLERANCE[dtype] * b.abs().max(), name


def test_without_anything_to_add():
    v, weight, add = sample_inputs(2, 2, 90, 4, 33)
    expected = conv2d(v, weight, torch.zeros_like(add))
    torch.testing.assert_close(token_conv(v, weight), expected)


def test_the_heads_of_a_token_are_together_in_memory():
    v, weight, _ = sample_inputs(2, 3, 70, 4, 5)
    assert token_conv(v, weight).transpose(1, 2).is_contiguous()


def test_gradients_of_first_and_second_order():
    v, weight, _ = sample_inputs(1, 2, 9, 2, 3)
    assert torch.autograd.gradcheck(token_conv, (v, weight))
    assert torch.autograd.gradgradcheck(token_conv, (v, weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_id)
def test_a_bag_is_bitwise_the_same_alone_in_a_batch_and_packed(dtype):
    lengths = (130, 130, 1, 20, 300)
    bags = [sample_inputs(1, 2, n, 8, 33, dtype, seed=i) for i, n in enumerate(lengths)]
    weight = bags[0][1]

    def gradients(vs, dim, **kwargs):
        v = torch.cat(vs, dim=dim).detach().requires_grad_()
        out = token_conv(v, weight, **kwargs)
        return out, torch.autograd.grad(out.square().sum(), v)[0]

    values = [v for v, _, _ in bags]
    alone = [gradients([v], 0) for v in values]
    batch = gradients(values[:2], 0)
    bounds = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    packed = gradients(values, 2, cu_seqlens=torch.tensor(bounds, dtype=torch.int32))
    for b in range(2):
        for found, expected in zip(batch, alone[b], strict=True):
            assert torch.equal(found[b : b + 1], expected)
    for b, (start, stop) in enumerate(pairwise(bounds)):
        for found, expected in zip(packed, alone[b], strict=True):
            assert torch.equal(found[:, :, start:stop], expected)


def test_the_weight_gradient_of_packed_bags_is_the_sum():
    v, weight, _ = sample_inputs(1, 2, 150, 4, 33)
    bounds = torch.tensor([0, 70, 70, 150])
    packed = token_conv(v, weight, cu_seqlens=bounds)
    parts = torch.cat([token_conv(v[:, :, a:b], weight) for a, b in ((0, 70), (70, 150))], dim=2)
    found, expected = (
        torch.autograd.grad(out.square().sum(), weight)[0] for out in (packed, parts)
    )
    torch.testing.assert_close(found, expected)


def test_autocast_changes_nothing():
    v, weight, add = sample_inputs(1, 2, 100, 8, 33, torch.bfloat16)
    weight = weight.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = token_conv(v, weight, add=add)
    assert torch.equal(under, token_conv(v, weight, add=add))


@pytest.mark.parametrize("bounds", [None, [0, 3, 3, 80]], ids=["batch", "packed"])
def test_the_registered_operators_are_sound(bounds):
    v, weight, add = sample_inputs(1, 2, 80, 4, 5)
    bounds = None if bounds is None else torch.tensor(bounds)
    grad = torch.randn_like(v).requires_grad_()
    torch.library.opcheck(token_conv_fwd, (v, weight, None, bounds))
    torch.library.opcheck(token_conv_fwd, (v, weight, add, bounds))
    torch.library.opcheck(token_conv_weight_grad, (grad, v, bounds, 5))


def test_compiles_to_one_graph():
    inputs = sample_inputs(2, 2, 70, 4, 33)

    def function(v, weight, add):
        return token_conv(v, weight, add=add)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for a, b in zip(*(with_gradients(f, inputs) for f in (compiled, function)), strict=True):
        torch.testing.assert_close(a, b)


def test_functional_gradients():
    v, weight, _ = (x.detach() for x in sample_inputs(1, 2, 70, 4, 33))

    def loss(v, weight):
        return token_conv(v, weight).square().sum()

    found = torch.func.grad(loss, argnums=(0, 1))(v, weight)
    leaves = v.requires_grad_(), weight.requires_grad_()
    for a, b in zip(found, torch.autograd.grad(loss(*leaves), leaves), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, w: ((v[0], w), {}), r"\(B, H, N, D\), got torch.float64 \(2, 20, 4\)"),
        (lambda v, w: ((v.long(), w), {}), "int64"),
        (lambda v, w: ((v, w[:1]), {}), r"\(2, 1, K, 1\) with K odd.*\(1, 1, 5, 1\)"),
        (lambda v, w: ((v, w[:, :, :4]), {}), r"K odd.*\(2, 1, 4, 1\)"),
        (lambda v, w: ((v, w), {"add": v.float()}), "add must be torch.float64.*float32"),
        (lambda v, w: ((v, w), {"add": v[:, :, 1:]}), r"add must be.*\(1, 2, 19, 4\)"),
        (lambda v, w: ((v, w), {"cu_seqlens": torch.tensor([0, 7])}), "number of tokens 20"),
        (lambda v, w: ((v, w), {"cu_seqlens": torch.tensor([0.0, 20.0])}), "int32"),
        (
            lambda v, w: ((v.expand(3, -1, -1, -1), w), {"cu_seqlens": torch.tensor([0, 20])}),
            r"\(1, H, T, D\), got \(3, 2, 20, 4\)",
        ),
    ],
)
def test_bad_input_names_what_is_wrong(change, message):
    v, weight, _ = sample_inputs(1, 2, 20, 4, 5)
    args, kwargs = change(v.detach(), weight.detach())
    with pytest.raises(ValueError, match=message):
        token_conv(*args, **kwargs)
