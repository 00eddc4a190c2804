"""Linear layers whose groups of rows have weights of their own."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from builders.errors import relative_error
from builders.native import NATIVE, each_instruction_set, on_threads

pytestmark = pytest.mark.skipif(NATIVE != "available", reason=NATIVE)
# (rows of each group, C, O): none; few and many rows; odd widths; many groups.
SHAPES = [
    ((5,), 8, 4),
    ((0, 3, 0), 7, 1),
    ((1, 130, 0, 400), 33, 9),
    ((2000, 1), 64, 50),
    ((40,) * 60, 24, 8),
]


def call(name, *arguments):
    return getattr(torch.ops.gimp_fast, f"grouped_linear_{name}")(*arguments)


def inputs(lengths, c, o):
    """x, weights, gradient, gradient of x so far, bounds."""
    torch.manual_seed(0)
    bounds = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    t = bounds[-1]
    tensors = torch.randn(t, c), torch.randn(len(lengths), o, c), torch.randn(t, o)
    return *tensors, torch.randn(t, c), bounds


def all_passes(x, weight, grad, so_far, bounds):
    grad_x = so_far.clone()
    call("bwd_x", grad, weight, bounds, grad_x)
    return call("fwd", x, weight, bounds), grad_x, call("bwd_weight", grad, x, bounds)


@each_instruction_set
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_group_has_its_own_weight(instruction_set, shape):
    *tensors, bounds = inputs(*shape)
    found = all_passes(*tensors, bounds)
    x, weight, grad, so_far = (y.double() for y in tensors)
    groups = [slice(a, b) for a, b in pairwise(bounds)]
    expected = (
        torch.cat([x[rows] @ w.t() for rows, w in zip(groups, weight, strict=True)]),
        so_far + torch.cat([grad[rows] @ w for rows, w in zip(groups, weight, strict=True)]),
        torch.stack([grad[rows].t() @ x[rows] for rows in groups]),
    )
    for a, b in zip(found, expected, strict=True):
        assert relative_error(a, b) <= 2e-6


@each_instruction_set
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_threads_and_other_groups_do_not_change_a_bit(instruction_set, shape):
    x, weight, grad, so_far, bounds = inputs(*shape)
    with on_threads(1):
        expected = all_passes(x, weight, grad, so_far, bounds)
    for threads in (2, 5):
        with on_threads(threads):
            found = all_passes(x, weight, grad, so_far, bounds)
        assert all(map(torch.equal, found, expected))
    for group, (a, b) in enumerate(pairwise(bounds)):
        one = x[a:b], weight[group : group + 1], grad[a:b], so_far[a:b], [0, b - a]
        out, grad_x, grad_weight = all_passes(*one)
        assert torch.equal(out, expected[0][a:b])
        assert torch.equal(grad_x, expected[1][a:b])
        assert torch.equal(grad_weight[0], expected[2][group])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("fwd", lambda x, w, g, b: (x.double(), w, b), "contiguous float32"),
        ("fwd", lambda x, w, g, b: (x, w[0], b), "of 3 dimensions"),
        ("fwd", lambda x, w, g, b: (x, w, [0, 9]), "bounds must rise from 0"),
        ("fwd", lambda x, w, g, b: (x, w, [0, 6, 4, 8]), "bounds must rise from 0"),
        ("fwd", lambda x, w, g, b: (x, w, [0, 8]), "one weight for each group"),
        ("fwd", lambda x, w, g, b: (x[:, :2].contiguous(), w, b), "number of channels"),
        ("bwd_x", lambda x, w, g, b: (x, w, b, x), "number of channels"),
        ("bwd_x", lambda x, w, g, b: (g, w, b, g.clone()), "grad_x has another shape"),
        ("bwd_weight", lambda x, w, g, b: (g[:7].contiguous(), x, b), "differ in rows"),
        ("bwd_weight", lambda x, w, g, b: (g[:, :0].contiguous(), x, b), "no channels"),
    ],
)
def test_what_does_not_fit_is_refused(name, change, message):
    x, weight, grad, _, bounds = inputs((5, 3), 6, 4)
    with pytest.raises(RuntimeError, match=message):
        call(name, *change(x, weight, grad, bounds))
