"""Co-attention beside torch's attention, bag by bag."""

from __future__ import annotations

import pytest
import torch
from builders.packed import cu_seqlens_of, random_rows
from torch import nn

from gimp_fast.nn.co_attention import CoAttention

LENGTHS = (1, 5, 2)
CU_SEQLENS = cu_seqlens_of(LENGTHS)


def module_and_peer(dim=6):
    torch.manual_seed(0)
    ours = CoAttention(dim).double()
    peer = nn.MultiheadAttention(dim, 1, batch_first=True).double()
    state = {
        "in_proj_weight": torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]),
        # Ours has no bias of the keys: no value of it would change anything.
        "in_proj_bias": torch.cat([ours.query.bias, torch.randn(dim).double(), ours.value.bias]),
        "out_proj.weight": ours.out.weight,
        "out_proj.bias": ours.out.bias,
    }
    peer.load_state_dict(state)
    return ours, peer


def inputs(queries=3, dim=6):
    return random_rows(len(LENGTHS), queries, dim), random_rows(sum(LENGTHS), dim, seed=1)


@pytest.mark.parametrize("queries", [1, 3])
def test_equals_torchs_attention_of_each_bag(queries):
    ours, peer = module_and_peer()
    q, rows = inputs(queries)
    attended, attention = ours(q, rows, CU_SEQLENS)
    assert attended.shape == (3, queries, 6)
    parts = zip(attended, attention.split(LENGTHS), q, rows.split(LENGTHS), strict=True)
    for found, weights, query, bag in parts:
        expected, expected_weights = peer(query[None], bag[None], bag[None])
        torch.testing.assert_close(found, expected[0])
        torch.testing.assert_close(weights.T, expected_weights[0])


def test_gradients_equal_torchs():
    ours, peer = module_and_peer()
    q, rows = (x.requires_grad_() for x in inputs())
    upstream = torch.randn(3, 3, 6).double()
    found = torch.autograd.grad((ours(q, rows, CU_SEQLENS)[0] * upstream).sum(), (q, rows))
    expected = [
        peer(query[None], bag[None], bag[None])[0][0]
        for query, bag in zip(q, rows.split(LENGTHS), strict=True)
    ]
    expected = torch.autograd.grad((torch.stack(expected) * upstream).sum(), (q, rows))
    torch.testing.assert_close(found, expected)


def test_gradients_are_those_of_finite_differences():
    ours, _ = module_and_peer()
    q, rows = (x.requires_grad_() for x in inputs())
    assert torch.autograd.gradcheck(lambda q, rows: ours(q, rows, CU_SEQLENS), (q, rows))
