"""Rows that are needed: the module gives those of the whole layer, with every gradient."""

from __future__ import annotations

import pytest
import torch
from builders.packed import random_rows

from gimp_fast.nn import NystromAttention
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
