"""How many kernels a call launches, counted on tensors without data: no GPU is needed."""

from __future__ import annotations

import importlib
import math
from collections import Counter

import pytest
import torch

pytest.importorskip("triton")
from gimp_fast.kernels import launch as launching
from gimp_fast.kernels import pinv
from gimp_fast.kernels.nystrom_attention import (
    nystrom_attention_bwd,
    nystrom_attention_fwd,
)

MODULES = (
    "landmarks", "landmark_scores", "landmarks_to_keys", "queries_to_landmarks", "pinv",
    "nystrom_attention",
)  # fmt: skip
HEADS, D, M = 8, 64, 256
# Bags in a batch, or packed, and the tokens of each.
SHAPES = {
    "one": (1, 6000, False),
    "batch-of-8": (8, 6000, False),
    "batch-of-128": (128, 6000, False),
    "slide": (1, 148_569, False),
    "300-packed": (300, 1000, True),
}


@pytest.fixture
def launches(monkeypatch):
    """(kernel, grid, constants) of each launch, which is not made, on a GPU like an H100."""
    made = []

    def keep(kernel, grid, config, *args, cooperative=False, **constants):
        made.append((kernel.fn.__name__, grid, constants))

    for name in MODULES:
        module = importlib.import_module(f"gimp_fast.kernels.{name}")
        monkeypatch.setattr(module, "launch", keep)
    monkeypatch.setattr(pinv, "multiprocessors", lambda device: 132)
    return made


def run(bags, tokens, packed):
    """Forward and backward pass."""
    batch, length = (1, bags * tokens) if packed else (bags, tokens)
    cu_seqlens = torch.empty(bags + 1, dtype=torch.int32, device="meta") if packed else None
    qkv = torch.empty(batch, length, 3, HEADS, D, dtype=torch.bfloat16, device="meta")
    q, k, v = (x.transpose(1, 2) for x in qkv.unbind(2))
    arch = launching.ARCHITECTURES[90]
    out, *saved = nystrom_attention_fwd(q, k, v, cu_seqlens, M, 6, 0.125, arch)
    nystrom_attention_bwd(out, q, k, v, cu_seqlens, *saved, 6, 0.125, arch)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_launches_do_not_grow_with_the_batch(launches, shape):
    run(*shape)
    assert len(launches) == 20
    assert Counter(name for name, *_ in launches)["_pinv_fwd_kernel"] == 1


def test_kernels_are_the_same_for_3_and_for_300_bags(launches):
    """No constant says how many bags there are, so nothing is compiled again."""
    run(3, 1000, True)
    few = [(name, constants) for name, _, constants in launches]
    launches.clear()
    run(300, 1000, True)
    assert [(name, constants) for name, _, constants in launches] == few


def test_a_team_fits_the_device_and_has_work():
    arch = launching.ARCHITECTURES[90]
    for matrices in (1, 7, 8, 64, 1024):
        for available in (1, 3, 20, 82, 132):
            for m in (1, 37, 64, 256, 512):
                team = pinv._team(matrices, m, arch, available)
                assert 1 <= team <= min(available, pinv.LARGEST_TEAM)
                assert team <= math.ceil(m / 64) ** 2
    assert pinv._team(8, 256, arch, 132) == 16
    assert pinv._team(1024, 256, arch, 132) == 4
