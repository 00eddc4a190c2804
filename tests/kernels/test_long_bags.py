"""Only bags of more than M tokens have M×M matrices, and each has its own."""

from __future__ import annotations

import pytest
import torch
from builders.attention import loss_weight, outputs_and_gradients, random_projections, split

from gimp_fast.ops import nystrom_attention

pytest.importorskip("triton")
from gimp_fast.kernels.bags import Bags
from gimp_fast.kernels.long_bags import matrix_slots

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MARKS = 16


def slot(start: int) -> int:
    return start // (MARKS + 1)


@pytest.mark.parametrize(
    "lengths",
    [(17,), (17, 17, 17), (1, 17, 16, 0, 17), (16,) * 40 + (17,), (5, 300, 2, 2, 17, 16, 18)],
    ids=["one", "shortest", "mixed", "last", "long"],
)
def test_long_bags_have_slots_of_their_own(lengths):
    starts = torch.tensor([0, *lengths]).cumsum(0).tolist()
    found = [slot(start) for start, n in zip(starts, lengths, strict=False) if n > MARKS]
    assert len(set(found)) == len(found)
    assert max(found) < sum(lengths) // (MARKS + 1)


def test_slots_are_no_more_than_bags():
    bounds = torch.zeros(4, dtype=torch.int32)
    assert matrix_slots(Bags(3, 10_000, bounds), MARKS) == 3
    assert matrix_slots(Bags(3, 35, bounds), MARKS) == 2
    assert matrix_slots(Bags(3, 10_000, None), MARKS) == 3


@pytest.mark.slow
@pytest.mark.triton
def test_long_bags_among_many_short_ones_are_bitwise_the_same_alone():
    lengths = (3, 17, 0, 1, 2, 16, 40, 1, 1, 5, 0, 4)
    assert sum(lengths) // (MARKS + 1) < len(lengths)
    qkv = random_projections(1, sum(lengths), 2, 16).to(DEVICE)
    weight = loss_weight(split(qkv))
    options = {"num_landmarks": MARKS, "pinv_iterations": 3, "backend": "triton"}
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    inputs = split(qkv, torch.float32)
    packed = outputs_and_gradients(nystrom_attention, inputs, weight, cu_seqlens=bounds, **options)
    for b in (1, 6):
        part = slice(bounds[b], bounds[b + 1])
        alone = [x.detach()[:, :, part].requires_grad_() for x in inputs]
        found = outputs_and_gradients(nystrom_attention, alone, weight[:, :, part], **options)
        assert all(torch.equal(x, y[:, :, part]) for x, y in zip(found, packed, strict=True))
