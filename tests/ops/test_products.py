"""Batched products by either library: equal to fp64 whatever the strides."""

from __future__ import annotations

import pytest
import torch
from builders.errors import assert_no_worse, relative_error

from gimp_fast.ops.products import SMALLEST, precise_product, product

SMALL, LARGE = (5, 7, 3), (96, 64, 300)
pytestmark = pytest.mark.usefixtures("library")
assert LARGE[0] * LARGE[1] * LARGE[2] >= SMALLEST


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def layouts(rows, columns, groups):
    """The same shape (G, rows, columns): dense, transposed, and with gaps between the rows."""
    yield random(groups, rows, columns)
    yield random(groups, columns, rows).mT
    yield random(groups, rows, 3 * columns)[..., columns : 2 * columns]
    yield random(groups, columns, 2 * rows)[..., :rows].mT


@pytest.mark.parametrize("function", [product, precise_product])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("sizes", [SMALL, LARGE], ids=["small", "large"])
def test_any_strides(sizes, groups, function):
    m, n, k = sizes
    for x in layouts(m, k, groups):
        for w in layouts(n, k, groups):
            assert relative_error(function(x, w), x.double() @ w.double().mT) <= 1e-6


@pytest.mark.parametrize("function", [product, precise_product])
@pytest.mark.parametrize("sizes", [SMALL, LARGE], ids=["small", "large"])
def test_adds_a_matrix_or_one_row_and_leaves_it_as_it_was(sizes, function):
    m, n, k = sizes
    x, w = random(1, m, k), random(1, n, k)
    for add in (random(1, m, n), random(1, 1, n), random(1, n, m).mT):
        before = add.clone()
        assert relative_error(function(x, w, add), add.double() + x.double() @ w.double().mT) < 1e-6
        assert torch.equal(add, before)


def test_a_product_of_one_row_adds_a_row():
    x, w, add = random(1, 1, 2048), random(1, 1024, 2048), random(1, 1, 1024)
    expected = add.double() + x.double() @ w.double().mT
    assert relative_error(product(x, w, add), expected) <= 1e-6


def test_short_runs_round_no_worse_than_torch():
    """Positive factors, as weights of a softmax are: their sums only grow."""
    x, w = random(1, 256, 256).exp(), random(1, 256, 256).exp()
    expected = x.double() @ w.double().mT
    assert_no_worse([precise_product(x, w)], [torch.bmm(x, w.mT)], [expected], factor=1.5)


def test_other_precisions():
    x, w = (torch.randn(1, 128, 128, dtype=torch.float64) for _ in range(2))
    torch.testing.assert_close(product(x, w), x @ w.mT, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(precise_product(x, w), x @ w.mT, atol=1e-12, rtol=1e-12)
