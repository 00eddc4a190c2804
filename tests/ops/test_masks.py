"""Masks that are counted where the batch is made."""

from __future__ import annotations

import pytest
import torch

from gimp_fast.ops.masks import Masked, split_masked, true_rows

MASK = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1]], dtype=torch.bool)


def test_counts_are_those_of_each_bag():
    masked = Masked.of(MASK)
    assert masked.counts == (2, 0, 3)
    assert masked.total == 5
    mask, counts = split_masked(masked)
    assert mask is MASK
    assert counts == (2, 0, 3)


def test_a_tensor_has_no_counts():
    assert split_masked(MASK) == (MASK, None)
    assert split_masked(None) == (None, None)


def test_wrong_counts_are_refused():
    with pytest.raises(
        ValueError, match=r"has 5 masked patches; its counts are \(2, 2\), 4 in all"
    ):
        split_masked(Masked(MASK, (2, 2)))


@pytest.mark.parametrize("mask", [MASK.flatten(), MASK[1], MASK[2], MASK[0, :0]], ids=len)
def test_true_rows_are_the_same_with_their_number(mask):
    assert torch.equal(true_rows(mask, int(mask.sum())), true_rows(mask, None))
