"""Processes of torchrun: each has its part of the slides, on a GPU of its own."""

from __future__ import annotations

import pytest
import torch

from gimp_fast.wsi.ranks import device_of_rank, shard_of_rank


@pytest.fixture
def rank(monkeypatch):
    def start(rank: int, world: int, gpus: int) -> None:
        for key, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world}.items():
            monkeypatch.setenv(key, str(value))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)

    return start


def test_alone_there_are_no_parts(monkeypatch, rank):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert shard_of_rank() is None
    rank(0, 1, gpus=4)
    assert shard_of_rank() is None
    assert device_of_rank("auto") == "auto"


def test_each_rank_has_a_part_and_a_gpu(rank):
    rank(2, 4, gpus=4)
    assert (shard_of_rank(), device_of_rank("auto")) == ("3/4", "cuda:2")
    assert device_of_rank("cuda:1") == "cuda:1"  # as it is asked for
    rank(2, 4, gpus=0)
    assert device_of_rank("auto") == "cpu"
    rank(3, 4, gpus=2)
    assert device_of_rank("auto") == "cuda:1"
