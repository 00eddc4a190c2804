"""Rows that are needed: the module gives those of the whole layer, with every gradient."""

from __future__ import annotations

import pytest
import torch
from builders.packed import random_rows

from gimp_fast.nn import NystromAttention
from gimp_fast.ops import nystrom_rows
from gimp_fast.ops.packing import Bags, Rows

DIM, M = 24, 8
# Lengths of bags; below, at and above M; one token; none.
LENGTHS = {
    "one-token": (1,),
    "short": (M - 1,),
    "at-M": (M,),
    "above-M": (M + 1,),
    "long": (150,),
    "ragged": (1, 70, M, 0, M + 1, 5, 200),
}


def module(dtype=torch.float64, **kwargs):
    torch.manual_seed(0)
    options = {"dim_head": 5, "heads": 3, "num_landmarks": M, "residual_conv_kernel": 7}
    layer = NystromAttention(DIM, **(options | kwargs)).to(dtype)
    layer.to_qkv.weight.data *= 3
    return layer


def rows_of(bags, kind):
    """The first token of each bag, or it and about half of the others, or an uneven choice."""
    if kind == "first":
        return Rows.first(bags)
    wanted = torch.rand(bags.num_rows, generator=torch.Generator().manual_seed(2)) < 0.5
    if kind == "half":
        wanted[Rows.first(bags).index] = True
    else:  # none of the first bag, all of the last
        wanted[: bags.bounds[1]] = False
        wanted[bags.bounds[-2] :] = True
    counts = [int(wanted[start:stop].sum()) for start, stop in bags.spans]
    return Rows(wanted.nonzero()[:, 0], Bags.of_lengths(counts))


def with_gradients(layer, x, out):
    generator = torch.Generator().manual_seed(3)
    grad = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
    return [out, *torch.autograd.grad(out, [x, *layer.parameters()], grad)]


def both(layer, x, rows, **kwargs):
    """Rows, and gradients, of the layer for these rows and of the whole layer."""
    found = with_gradients(layer, x, layer(x, rows=rows, **kwargs))
    whole = layer(x, **kwargs).flatten(0, 1)[rows.index]
    return found, with_gradients(layer, x, whole)


def assert_equal_to_rounding(found, expected, tolerance=1e-12):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= tolerance * (1 + b.abs().max())


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("kind", ["first", "half", "uneven"])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_packed_bags_give_the_rows_of_the_whole_layer(lengths, kind, backend):
    bags = Bags.of_lengths(lengths)
    x = random_rows(1, bags.num_rows, DIM).requires_grad_()
    layer = module(backend=backend)
    rows = rows_of(bags, kind)
    if not rows.bags.num_rows:
        assert layer(x, cu_seqlens=bags, rows=rows).shape == (0, DIM)
        return
    assert_equal_to_rounding(*both(layer, x, rows, cu_seqlens=bags))


@pytest.mark.parametrize("residual", [True, False], ids=["residual", "plain"])
@pytest.mark.parametrize("kind", ["first", "half"])
@pytest.mark.parametrize("n", [1, M - 1, M, M + 1, 90])
def test_a_batch_gives_the_rows_of_the_whole_layer(n, kind, residual):
    x = random_rows(3, n, DIM).requires_grad_()
    rows = rows_of(Bags.of_equal(3, n), kind)
    assert_equal_to_rounding(*both(module(residual=residual), x, rows))


def test_composed_bags_give_the_rows_of_the_whole_layer(monkeypatch):
    """As where all bags are computed together and nothing is read: on a GPU, in training."""
    bags = Bags.of_lengths(LENGTHS["ragged"])
    x = random_rows(bags.num_rows, DIM).requires_grad_()
    layer, rows = module(), rows_of(bags, "half")
    monkeypatch.setattr(nystrom_rows, "is_transformed", lambda x: True)
    found = with_gradients(layer, x, layer._rows(x, rows, bags))
    whole = layer(x[None], cu_seqlens=bags)[0][rows.index]
    assert_equal_to_rounding(found, with_gradients(layer, x, whole))


@pytest.mark.parametrize("kind", ["first", "half"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_bag_is_bitwise_the_same_alone_in_a_batch_and_packed(dtype, kind):
    layer = module(dtype).eval()
    x = random_rows(2, 90, DIM, dtype=dtype)
    bags = Bags.of_lengths((90, 0, 90, 5))
    extra = random_rows(5, DIM, seed=4, dtype=dtype)
    rows = rows_of(bags, kind)
    of_batch = Rows(rows.index[: rows.bags.bounds[3]], Bags.of_lengths(rows.bags.lengths[0:3:2]))

    def bits(x, rows, **kwargs):
        x = x.detach().requires_grad_()
        out = layer(x, rows=rows, **kwargs)
        return [out, torch.autograd.grad(out.square().sum(), x)[0].flatten(0, 1)]

    packed = bits(torch.cat([x.flatten(0, 1), extra])[None], rows, cu_seqlens=bags)
    batch = bits(x, of_batch)
    for a, b in zip(batch, packed, strict=True):
        assert torch.equal(a, b[: len(a)])
    for bag in range(2):
        first, last = of_batch.bags.spans[bag]
        one = Rows(rows.index[first:last] - 90 * bag, Bags.of_lengths([last - first]))
        out, grad = bits(x[bag : bag + 1], one)
        assert torch.equal(out, batch[0][first:last])
        assert torch.equal(grad, batch[1][90 * bag : 90 * (bag + 1)])


@pytest.mark.parametrize(("n", "marks"), [(5, 32), (70, 32), (701, 256)], ids=str)
@pytest.mark.parametrize("kind", ["first", "half"])
def test_any_number_of_threads_gives_the_same_bits(n, marks, kind):
    torch.manual_seed(0)
    layer = NystromAttention(64, dim_head=64, heads=2, num_landmarks=marks).eval()
    x = random_rows(1, n, 64, dtype=torch.float32)
    rows = rows_of(Bags.of_lengths([n]), kind)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(layer(x, rows=rows))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_autocast_gives_its_dtype_and_stays_near():
    layer = module(torch.float32)
    x = random_rows(1, 90, DIM, dtype=torch.float32).requires_grad_()
    rows = rows_of(Bags.of_lengths([90]), "half")
    with torch.autocast("cpu", torch.bfloat16):
        found = with_gradients(layer, x, layer(x, rows=rows))
    assert found[0].dtype == torch.bfloat16
    exact = with_gradients(layer, x, layer(x)[0, rows.index])
    for a, b in zip(found, exact, strict=True):
        assert a.dtype == torch.bfloat16 if a is found[0] else a.dtype == torch.float32
        assert (a - b).abs().max() <= 0.05 * b.abs().max()


@pytest.mark.parametrize("n", [5, M + 1, 700], ids=["exact", "just-above", "long"])
def test_finite_input_of_any_size_gives_finite_output(n):
    layer = module(torch.float32)
    x = random_rows(1, n, DIM, dtype=torch.float32) * 1e30
    mate = random_rows(1, 40, DIM, seed=1, dtype=torch.float32)
    bags = Bags.of_lengths([40, n])
    alone = layer(x, rows=Rows.first(Bags.of_lengths([n])))
    packed = layer(torch.cat([mate, x], 1), cu_seqlens=bags, rows=Rows.first(bags))
    assert alone.isfinite().all()
    assert torch.equal(packed[1:], alone)


def test_dropout_acts_on_the_rows():
    layer = module(dropout=0.5).train()
    x = random_rows(1, 50, DIM)
    rows = rows_of(Bags.of_lengths([50]), "half")
    dropped = layer(x, rows=rows) == 0
    assert 0.3 < dropped.double().mean() < 0.7
    assert not (layer.eval()(x, rows=rows) == 0).any()


def test_compiles_to_one_graph():
    layer = module()
    x = random_rows(1, 60, DIM).requires_grad_()
    rows = rows_of(Bags.of_lengths([60]), "half")
    compiled = torch.compile(lambda x: layer(x, rows=rows), fullgraph=True, backend="aot_eager")
    found = with_gradients(layer, x, compiled(x))
    assert_equal_to_rounding(found, with_gradients(layer, x, layer(x, rows=rows)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: m(x, rows=torch.tensor([0])), "rows is Tensor; expected Rows of 1 bags"),
        (lambda m, x: m(x, rows=Rows.first(Bags.of_lengths([4, 4]))), "rows.bags has 2 bags"),
        (lambda m, x: m(x, rows=rows_of(Bags.of_lengths([10]), "half")), "has other tokens"),
        (
            lambda m, x: m(x, x[..., 0] > 0, rows=Rows.first(Bags.of_lengths([8]))),
            "rows cannot be combined with a mask",
        ),
    ],
    ids=["tensor", "bags", "outside", "mask"],
)
def test_bad_rows_get_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call(module(), random_rows(1, 8, DIM))
