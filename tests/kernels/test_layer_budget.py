"""What a whole layer asks of a GPU in training, counted on tensors without data."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(
    not BENCHMARKS.is_dir(), reason="the tests lie without the benchmarks"
)
# Bags in a batch, or packed, and the tokens of each.
SHAPES = {
    "one": (1, 6000, False),
    "batch-of-8": (8, 6000, False),
    "batch-of-128": (128, 6000, False),
    "slide": (1, 148_569, False),
    "300-packed": (300, 1000, True),
}


@pytest.fixture
def counting(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import _device_operations

    yield _device_operations
    del sys.modules["_device_operations"]


@pytest.mark.parametrize("capability", [86, 90], ids="sm_{}".format)
@pytest.mark.parametrize(("bags", "tokens", "packed"), SHAPES.values(), ids=SHAPES)
def test_a_layer_takes_few_operations_and_never_waits(bags, tokens, packed, capability, counting):
    found = counting.count_layer(bags, tokens, packed=packed, capability=capability)
    assert found.launches["_pinv_bwd_kernel"] == 1
    assert found.operators["mm"] + found.operators["addmm"] == 6  # two projections, three each
    assert found.device_operations <= 51
    assert not found.waits


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: bool((x > 0).all()),
        lambda x: torch.tensor([1, 2], device=x.device),
        lambda x: torch.ones(3).to(x.device),
        lambda x: x.copy_(torch.ones(3)),
    ],
    ids=["item", "tolist", "nonzero", "mask", "bool", "tensor", "to", "copy"],
)
def test_the_counter_sees_waits(wait, counting):
    counts = counting.Counts()
    x = torch.empty(3, device="meta")
    # Without data there is nothing to read, so most of them fail then.
    with counting.counting(counts), suppress(NotImplementedError, RuntimeError):
        wait(x)
    assert counts.waits.total() == 1


def test_the_counter_counts_kernels_and_no_views(counting):
    counts = counting.Counts()
    x = torch.empty(4, 6, device="meta")
    with counting.counting(counts):
        (x.t().reshape(3, 8)[1:].unbind(0)[0].new_empty(3) + 1).mul_(2).detach()
    assert counts.operators == {"clone": 1, "add": 1, "mul_": 1}
