"""Bounds of packed bags: made once, checked, never read back from a GPU."""

from __future__ import annotations

import pytest
import torch

from gimp_fast.nn import NystromAttention, PatchAggregator
from gimp_fast.ops import nystrom_attention
from gimp_fast.ops.nystrom_attention_row import nystrom_attention_row
from gimp_fast.ops.packing import Bags, Rows, as_bags, operands, validate_rows
from gimp_fast.ops.token_conv import token_conv

LENGTHS = [[5], [3, 1, 40, 0, 7], []]


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_bags_know_their_bounds_as_numbers_and_as_a_tensor(lengths):
    bags = Bags.of_lengths(lengths)
    assert len(bags) == len(lengths)
    assert bags.lengths == lengths
    assert bags.num_rows == sum(lengths)
    assert bags.cu_seqlens.dtype == torch.int32
    assert bags.cu_seqlens.tolist() == list(bags.bounds)
    assert as_bags(bags, sum(lengths)).spans == as_bags(bags.cu_seqlens, sum(lengths)).spans


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_a_cls_token_makes_every_bag_one_longer(lengths):
    bags = Bags.of_lengths(lengths).with_cls
    assert bags.lengths == [length + 1 for length in lengths]
    assert bags.cu_seqlens.tolist() == list(bags.bounds)


@pytest.mark.parametrize("shape", [(3, 7), (1, 1), (2, 0), (0, 5)], ids=str)
def test_the_bags_of_a_batch_are_of_one_length(shape):
    bags = Bags.of_equal(*shape)
    assert bags.lengths == [shape[1]] * shape[0]
    assert bags.cu_seqlens.tolist() == list(bags.bounds)
    assert bags.cu_seqlens.dtype == torch.int32


def assert_rows(rows, index, lengths):
    assert rows.index.tolist() == index
    assert rows.index.dtype == torch.int64
    assert rows.bags.lengths == lengths
    assert rows.bags.cu_seqlens.tolist() == list(rows.bags.bounds)
    assert rows.bags.cu_seqlens.dtype == torch.int32


def test_the_first_token_of_each_bag_that_has_one():
    assert_rows(Rows.first(Bags.of_lengths([3, 1, 40])), [0, 3, 4], [1, 1, 1])
    assert_rows(Rows.first(Bags.of_lengths([0, 3, 0, 2])), [0, 3], [0, 1, 0, 1])
    assert_rows(Rows.first(Bags.of_lengths([])), [], [])


def test_cls_tokens_and_masked_patches():
    masked = torch.tensor([1, 0, 1, 0, 1, 1], dtype=torch.bool)
    rows = Rows.cls_and_masked(Bags.of_lengths([3, 0, 1, 2]), masked)
    # Tokens: CLS 0 and patches 1-3; CLS 4; CLS 5, patch 6; CLS 7, patches 8 and 9.
    assert_rows(rows, [0, 1, 3, 4, 5, 7, 8, 9], [3, 1, 1, 3])
    none = Rows.cls_and_masked(Bags.of_lengths([2, 4]), torch.zeros(6, dtype=torch.bool))
    assert_rows(none, [0, 3], [1, 1])


def changed_rows(index=(0, 3, 4), lengths=(1, 2), dtype=torch.int64):
    return Rows(torch.tensor(index, dtype=dtype), Bags.of_lengths(lengths))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.tensor([0, 3]), "rows is Tensor; expected Rows of 2 bags of 7 tokens on cpu"),
        (changed_rows(dtype=torch.int32), r"rows.index is torch.int32 \(3,\) on cpu"),
        (changed_rows(index=((0, 3, 4),)), r"rows.index is torch.int64 \(1, 3\)"),
        (Rows(torch.zeros(2, dtype=torch.int64, device="meta"), None), "on meta; expected Rows"),
        (changed_rows(lengths=(1, 1)), "rows.bags has 2 bags of 2 rows, rows.index 3 rows"),
        (changed_rows(lengths=(1, 1, 1)), "rows.bags has 3 bags of 3 rows"),
        (changed_rows(index=(0, 4, 3)), "does not rise"),
        (changed_rows(index=(0, 4, 4)), "does not rise"),
        (changed_rows(index=(0, 2, 4)), r"has other tokens than \[1, 2\] of bags of \[3, 4\]"),
        (changed_rows(index=(-1, 3, 4)), "has other tokens"),
        (changed_rows(index=(0, 3, 7)), "has other tokens"),
    ],
    ids=[
        "tensor", "dtype", "dims", "device", "count", "bags", "falls", "repeats", "other-bag",
        "negative", "too-large",
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_are_named(rows, message):
    bags = Bags.of_lengths([3, 4])
    validate_rows(changed_rows(), bags, torch.device("cpu"))
    with pytest.raises(ValueError, match=message):
        validate_rows(rows, bags, torch.device("cpu"))


@pytest.mark.parametrize(
    "bounds",
    [[0, 3], [1, 5], [0, 4, 2, 5], []],
    ids=["short", "not-from-0", "falls", "empty"],
)
def test_bounds_that_do_not_fit_are_named(bounds):
    with pytest.raises(ValueError, match="must rise from 0 to the number of tokens 5"):
        as_bags(torch.tensor(bounds, dtype=torch.int32), 5)


def test_bags_of_other_rows_are_refused():
    with pytest.raises(ValueError, match="the bags have 4 rows; expected 5"):
        operands(Bags.of_lengths([4]), 5)


class Unreadable(torch.Tensor):
    """Stands for a tensor on a GPU, where every read would wait."""

    def tolist(self):
        raise AssertionError("bounds were read back")

    item = __int__ = tolist


def unreadable(lengths: list[int]) -> Bags:
    bags = Bags.of_lengths(lengths)
    return Bags(bags.bounds, bags.cu_seqlens.as_subclass(Unreadable))


def results(bags: Bags | torch.Tensor) -> list[torch.Tensor]:
    """Outputs and gradients of operators and layers for packed bags."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 48, 8, requires_grad=True) for _ in range(3))
    weight = torch.randn(2, 1, 5, 1, requires_grad=True)
    attended = nystrom_attention(q, k, v, num_landmarks=8, cu_seqlens=bags, backend="torch")
    convolved = token_conv(v, weight, cu_seqlens=bags)
    grads = torch.autograd.grad((attended * convolved).sum(), [q, k, v, weight])
    row = nystrom_attention_row(q.detach(), k.detach(), num_landmarks=8, cu_seqlens=bags)
    layer = NystromAttention(16, dim_head=8, heads=2, num_landmarks=8)
    x = torch.randn(1, 48, 16)
    aggregator = PatchAggregator(6, dim=16, heads=2, num_landmarks=8)
    cls, tokens = aggregator(torch.randn(48, 6), cu_seqlens=bags)
    return [attended, convolved, *grads, row, layer(x, cu_seqlens=bags), cls, tokens]


def test_bags_give_the_bits_of_a_tensor_and_are_never_read_back():
    lengths = [3, 1, 37, 7]
    expected = results(Bags.of_lengths(lengths).cu_seqlens)
    for x, y in zip(results(unreadable(lengths)), expected, strict=True):
        assert torch.equal(x.as_subclass(torch.Tensor), y)
