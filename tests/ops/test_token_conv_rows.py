"""The convolution for some rows against the rows of the whole convolution."""

from __future__ import annotations

import pytest
import torch
from builders.dtypes import dtype_id
from builders.packed import random_rows

from gimp_fast.ops import token_conv_rows as module
from gimp_fast.ops.packing import Bags, Rows
from gimp_fast.ops.token_conv import BLOCK_CPU, token_conv
from gimp_fast.ops.token_conv_rows import (
    token_conv_rows,
    token_conv_rows_bwd,
    token_conv_rows_fwd,
)

# Lengths of bags: one token; shorter than the filter; around one block; none.
LENGTHS = {
    "one-token": (1,),
    "block": (BLOCK_CPU,),
    "ragged": (1, 7, 0, BLOCK_CPU + 1, 3 * BLOCK_CPU + 5, BLOCK_CPU - 1),
}
TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 1e-2}


@pytest.fixture(params=["blocks", "taps"])
def path(request, monkeypatch):
    """Both ways to compute it: that of the CPU, and that of devices whose places are not read."""
    if request.param == "taps":

        def write(out, v, weight, index, packed, add):
            module._write_by_taps(out, v, weight, index, packed[0], add)

        def add_grad(grad_v, grad, v, weight, index, packed):
            return module._add_grad_by_taps(grad_v, grad, v, weight, index, packed[0])

        monkeypatch.setattr(module, "write_token_conv_rows", write)
        monkeypatch.setattr(module, "add_token_conv_rows_grad", add_grad)


def rows_of(bags, kind):
    tokens = torch.arange(bags.num_rows)
    wanted = {
        "first": torch.isin(tokens, Rows.first(bags).index),
        "half": torch.rand(len(tokens), generator=torch.Generator().manual_seed(1)) < 0.5,
        "all": tokens >= 0,
        "last": tokens == bags.num_rows - 1,
    }[kind]
    counts = [int(wanted[start:stop].sum()) for start, stop in bags.spans]
    return Rows(wanted.nonzero()[:, 0], Bags.of_lengths(counts))


def inputs_of(bags, rows, kernel, dtype=torch.float64, h=3, d=5):
    v = random_rows(bags.num_rows, 2, h, d).to(dtype)[:, 1].transpose(0, 1)[None]
    weight = random_rows(h, 1, kernel, 1, seed=1).to(dtype)
    add = random_rows(1, h, rows.bags.num_rows, d, seed=2).to(dtype)
    return [x.requires_grad_() for x in (v, weight, add)]


def with_gradients(function, inputs):
    out = function(*inputs)
    grad = random_rows(*out.shape, seed=3).to(out.dtype)
    return [out, *torch.autograd.grad(out, inputs, grad)]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=dtype_id)
@pytest.mark.parametrize("kernel", [1, 33])
@pytest.mark.parametrize("kind", ["first", "half", "all", "last"])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_equals_the_rows_of_the_whole_convolution(lengths, kind, kernel, dtype, path):
    bags = Bags.of_lengths(lengths)
    rows = rows_of(bags, kind)
    inputs = inputs_of(bags, rows, kernel, dtype)

    def whole(v, weight, add):
        return add + token_conv(v, weight, cu_seqlens=bags)[:, :, rows.index]

    found = with_gradients(lambda v, w, a: token_conv_rows(v, w, rows, bags=bags, add=a), inputs)
    doubles = [x.detach().double().requires_grad_() for x in inputs]
    expected = with_gradients(whole, doubles)
    for name, a, b in zip(["out", "dv", "dweight", "dadd"], found, expected, strict=True):
        assert a.dtype == dtype
        largest = b.abs().max() if b.numel() else 1
        assert ((a - b).abs() <= TOLERANCE[dtype] * (1 + largest)).all(), name


def test_without_anything_to_add(path):
    bags = Bags.of_lengths((70, 3))
    rows = rows_of(bags, "half")
    v, weight, _ = inputs_of(bags, rows, 9)
    expected = token_conv(v, weight, cu_seqlens=bags)[:, :, rows.index]
    torch.testing.assert_close(token_conv_rows(v, weight, rows, bags=bags), expected)


def test_the_heads_of_a_token_are_together_in_memory(path):
    bags = Bags.of_lengths((70,))
    rows = rows_of(bags, "half")
    v, weight, _ = inputs_of(bags, rows, 9)
    assert token_conv_rows(v, weight, rows, bags=bags).transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("kind", ["first", "half"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_id)
def test_a_bag_is_bitwise_the_same_alone_and_packed(dtype, kind, path):
    bags = Bags.of_lengths((130, 1, 20, 300))
    rows = rows_of(bags, kind)
    inputs = inputs_of(bags, rows, 33, dtype)

    def bits(v, weight, add, rows, bags):
        out = token_conv_rows(v, weight, rows, bags=bags, add=add)
        return out, torch.autograd.grad(out.square().sum(), v)[0]

    out, grad = bits(*inputs, rows, bags)
    v, weight, add = inputs
    for (start, stop), (first, last) in zip(bags.spans, rows.bags.spans, strict=True):
        one = Rows(rows.index[first:last] - start, Bags.of_lengths([last - first]))
        values = v[:, :, start:stop].detach().requires_grad_()
        alone = bits(values, weight, add[:, :, first:last], one, Bags.of_lengths([stop - start]))
        assert torch.equal(alone[0], out[:, :, first:last])
        assert torch.equal(alone[1], grad[:, :, start:stop])


def test_the_registered_operators_are_sound(path):
    bags = Bags.of_lengths((3, 0, 77))
    rows = rows_of(bags, "half")
    v, weight, add = inputs_of(bags, rows, 5)
    packed = (rows.index, bags.cu_seqlens)
    torch.library.opcheck(token_conv_rows_fwd, (v, weight, None, *packed))
    torch.library.opcheck(token_conv_rows_fwd, (v, weight, add, *packed))
    checks = ("test_schema", "test_faketensor")
    arguments = [x.detach() for x in (add, v, weight)]
    torch.library.opcheck(token_conv_rows_bwd, (*arguments, *packed), test_utils=checks)


def test_gradcheck(path):
    bags = Bags.of_lengths((9, 4))
    rows = rows_of(bags, "half")
    inputs = inputs_of(bags, rows, 5, h=2, d=2)
    assert torch.autograd.gradcheck(
        lambda v, w, a: token_conv_rows(v, w, rows, bags=bags, add=a), inputs
    )


def test_a_second_derivative_is_refused():
    bags = Bags.of_lengths((9,))
    rows = rows_of(bags, "half")
    v, weight, _ = inputs_of(bags, rows, 5)
    out = token_conv_rows(v, weight, rows, bags=bags)
    (grad,) = torch.autograd.grad(out.square().sum(), v, create_graph=True)
    with pytest.raises(NotImplementedError, match="differentiable once"):
        grad.sum().backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, w, a: (v[0], w, a), r"\(B, H, N, D\), got torch.float64 \(3, 20, 5\)"),
        (lambda v, w, a: (v, w[:, :, :4], a), r"K odd.*\(3, 1, 4, 1\)"),
        (
            lambda v, w, a: (v, w, a[:, :, 1:]),
            r"add must be.*20, 5\), got.*19, 5\)",
        ),
        (lambda v, w, a: (v, w, a.float()), "add must be torch.float64.*float32"),
        (lambda v, w, a: (v[:, :, 1:], w, a), "20 rows; expected 19"),
    ],
    ids=["dims", "even-filter", "add-length", "add-dtype", "bounds"],
)
def test_bad_input_names_what_is_wrong(change, message):
    bags = Bags.of_lengths((20,))
    rows = rows_of(bags, "all")
    v, weight, add = change(*(x.detach() for x in inputs_of(bags, rows, 5)))
    with pytest.raises(ValueError, match=message):
        token_conv_rows(v, weight, rows, bags=bags, add=add)
