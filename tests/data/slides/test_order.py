"""Orders of patches: by row, by column, along a Hilbert curve."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gimp_fast.data.slides.order import PATCH_ORDERS, hilbert_index, patch_order

GRID = np.stack(np.meshgrid(np.arange(4), np.arange(3), indexing="ij"), -1).reshape(-1, 2) * 256


def test_rows_and_columns():
    shuffled = GRID[np.random.default_rng(0).permutation(len(GRID))]
    by_row = shuffled[patch_order(shuffled, "row")] // 256
    assert [tuple(p) for p in by_row] == [(x, y) for y in range(3) for x in range(4)]
    by_column = shuffled[patch_order(shuffled, "column")] // 256
    assert [tuple(p) for p in by_column] == [(x, y) for x in range(4) for y in range(3)]


@pytest.mark.parametrize("bits", [1, 2, 5])
def test_the_curve_visits_every_point_once_in_steps_of_one(bits):
    side = np.arange(1 << bits)
    points = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    index = hilbert_index(points, bits)
    assert sorted(index) == list(range(4**bits))
    steps = np.abs(np.diff(points[np.argsort(index)], axis=0)).sum(1)
    assert (steps == 1).all()


def test_the_curve_of_a_square_of_four_by_hand():
    index = hilbert_index(np.array([[0, 0], [0, 1], [1, 1], [1, 0]]), 1)
    assert index.tolist() == [0, 1, 2, 3]


def test_a_window_along_the_curve_is_more_compact_than_a_row():
    side = np.arange(64)
    coords = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2) * 256.0

    def spread(order: str) -> float:
        ordered = coords[patch_order(coords, order)]
        windows = ordered.reshape(-1, 256, 2)
        return np.linalg.norm(windows - windows.mean(1, keepdims=True), axis=-1).mean()

    assert spread("hilbert") < 0.5 * spread("row")


@pytest.mark.parametrize("order", PATCH_ORDERS)
@given(
    coords=st.lists(st.tuples(st.integers(-(10**6), 10**6), st.integers(0, 10**6)), max_size=40),
    dtype=st.sampled_from(["i8", "f8"]),
)
def test_every_row_once(order, coords, dtype):
    array = np.array(coords, dtype).reshape(-1, 2)
    found = patch_order(array, order)
    assert sorted(found) == list(range(len(coords)))
    assert found.dtype == np.uint32


@pytest.mark.parametrize("order", PATCH_ORDERS)
def test_equal_places_keep_the_order_of_the_file(order):
    assert patch_order(np.zeros((5, 2)), order).tolist() == [0, 1, 2, 3, 4]


def test_unknown_order():
    with pytest.raises(ValueError, match="spiral"):
        patch_order(GRID, "spiral")
