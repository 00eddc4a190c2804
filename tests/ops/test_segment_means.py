"""Means of balanced segments: values, gradients, bags."""

from __future__ import annotations

import pytest
import torch
from builders.dtypes import dtype_id
from builders.packed import random_rows

from gimp_fast.ops.packing import Bags
from gimp_fast.ops.segment_means import (
    segment_means,
    segment_means_bwd,
    segment_means_fwd,
    segments,
)
from gimp_fast.reference.nystrom_attention import landmarks_reference

M = 8
TOLERANCE = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 1e-2}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=dtype_id)
@pytest.mark.parametrize("lengths", [(M,), (M + 1,), (300, 17, 8)], ids=str)
def test_equals_the_reference(lengths, dtype):
    bags = Bags.of_lengths(lengths)
    x = random_rows(bags.num_rows, 5).to(dtype)
    found = segment_means(x, bags, M)
    expected = [landmarks_reference(x[a:b].double(), M) for a, b in bags.spans]
    assert found.dtype == dtype
    assert (found - torch.stack(expected)).abs().max() <= TOLERANCE[dtype]


def test_segments_of_short_and_empty_bags_without_rows_are_zero():
    bags = Bags.of_lengths((3, 0, 1))
    found = segment_means(random_rows(4, 5), bags, M)
    assert found.isfinite().all()
    assert not found[1].any()


def test_a_bag_is_bitwise_the_same_alone_and_packed():
    bags = Bags.of_lengths((300, 3, 0, 17))
    x = random_rows(bags.num_rows, 5, dtype=torch.float32).requires_grad_()
    packed = segment_means(x, bags, M)
    grad = torch.autograd.grad(packed.square().sum(), x)[0]
    for bag, (start, stop) in enumerate(bags.spans):
        part = x[start:stop].detach().requires_grad_()
        alone = segment_means(part, Bags.of_lengths([stop - start]), M)[0]
        assert torch.equal(alone, packed[bag])
        assert torch.equal(torch.autograd.grad(alone.square().sum(), part)[0], grad[start:stop])


@pytest.mark.parametrize("n", [8, 9, 20])
def test_segments_cover_the_rows_in_order(n):
    segment, lengths = segments(n, M, torch.device("cpu"))
    assert lengths.sum() == n
    assert torch.equal(segment, torch.arange(M).repeat_interleave(lengths))
    assert torch.equal(segment, ((torch.arange(n) + 1) * M - 1) // n)


def test_gradients_of_first_and_second_order():
    bags = Bags.of_lengths((11, 3, 0, 9))
    x = random_rows(bags.num_rows, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: segment_means(x, bags, M), x)
    assert torch.autograd.gradgradcheck(lambda x: segment_means(x, bags, M).sin(), x)


def test_the_registered_operators_are_sound():
    bags = Bags.of_lengths((11, 3, 0, 9))
    x = random_rows(bags.num_rows, 2).requires_grad_()
    torch.library.opcheck(segment_means_fwd, (x, bags.cu_seqlens, M))
    grad = random_rows(4, M, 2).requires_grad_()
    torch.library.opcheck(segment_means_bwd, (grad, bags.cu_seqlens, bags.num_rows))
