"""Several processes (ranks) that train one model, and what they exchange.

``torchrun -m gimp_fast.train …`` starts the processes; without it there is one rank and nothing is
exchanged. Each rank reads its share of every batch. A loss is the rank's share of the loss of the
whole batch: summed over ranks, the gradients equal those of one process on the whole batch.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from gimp_fast.errors import GimpError

# What a rank sees when another is gone: gloo's and NCCL's errors are RuntimeErrors.
_LOST_SIGNS = ("Connection closed", "Connection reset", "onnection refused", "imed out", "NCCL")


def split_evenly(total: int, parts: int) -> list[np.ndarray]:
    """0 … total − 1 in consecutive parts whose lengths differ by at most one."""
    return np.array_split(np.arange(total), parts)


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, as one of them sees them."""

    rank: int = 0  # of this process; rank 0 writes files
    size: int = 1
    local: int = 0  # number of this process on its machine, and of its GPU

    @property
    def writes(self) -> bool:
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value, summed over all ranks in the order of ranks."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor, group=_control())
        return torch.stack(parts).sum(0).tolist()

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks; for small picklable objects."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=_control())
        return values

    def from_first(self, value: Any) -> Any:
        """Rank 0's value."""
        return self.gather(value)[0]


ALONE = Ranks()


@dataclass(frozen=True)
class Share:
    """This rank's part of one batch."""

    ranks: Ranks
    total: int  # patients in the whole batch

    def mean(self, values: Tensor) -> Tensor:
        """Share of the mean over the batch, from values (b,) of this rank's patients."""
        return values.sum() / self.total

    def ratio(self, numerator: Tensor, denominator: Tensor) -> Tensor:
        """Share of the quotient of two sums over the batch, such as a mean over counted elements.

        The denominator carries no gradient.
        """
        if self.ranks.size > 1:
            denominator = denominator.detach().clone().double()
            dist.all_reduce(denominator)
        return numerator / denominator.clamp_min(1).to(numerator.dtype)

    def sum_of(self, values: Tensor) -> Tensor:
        """The sum over all ranks, without a gradient."""
        values = values.detach()
        if self.ranks.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def gather(self, rows: Tensor) -> Tensor:
        """Rows (b, …) of all ranks, (total, …); only this rank's carry gradients."""
        if self.ranks.size == 1:
            return rows
        counts = [len(part) for part in split_evenly(self.total, self.ranks.size)]
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows.detach()
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        whole = [part[:count] for part, count in zip(parts, counts, strict=True)]
        whole[self.ranks.rank] = rows
        return torch.cat(whole)

    def of_all(self, value: Tensor) -> Tensor:
        """Share of a scalar that every rank computes from gathered rows.

        It is an equal part of the value, with the gradient of this rank's rows.
        """
        return value - value.detach() * (1 - 1 / self.ranks.size)


def is_first_rank() -> bool:
    """True in the process that prints and writes."""
    return int(os.environ.get("RANK", "0")) == 0


@contextlib.contextmanager
def ranks_of_environment(device: str, timeout_minutes: float) -> Iterator[Ranks]:
    """The ranks that torchrun started, connected; a single rank without torchrun.

    Args:
        device: ``"cuda"`` for NCCL, else gloo.
        timeout_minutes: how long to wait for a silent rank.

    Raises:
        GimpError: the ranks cannot connect, or one is lost during the run.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    try:
        ranks = Ranks(*(int(os.environ[k]) for k in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
        backend = "cuda:nccl,cpu:gloo" if device == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(minutes=timeout_minutes))
    except (KeyError, ValueError, RuntimeError) as error:
        raise GimpError(f"the ranks of this run cannot connect: {error}") from error
    try:
        with _lost_ranks():
            yield ranks
    finally:
        _control.cache_clear()
        if dist.is_initialized():
            dist.destroy_process_group()


@contextlib.contextmanager
def _lost_ranks() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _LOST_SIGNS):
            raise
        raise GimpError(
            "another rank of this run ended or hangs; --resume continues after the last checkpoint "
            f"({' '.join(str(error).split())[:200]})"
        ) from error


@functools.cache
def _control() -> dist.ProcessGroup:
    """A process group for small messages on the CPU, which never wait for a GPU."""
    return dist.new_group(backend="gloo")


def parallel(
    module: nn.Module, ranks: Ranks, device: torch.device, *, some_unused: bool
) -> nn.Module:
    """The module, with gradients averaged over ranks during the backward pass.

    Args:
        module: holds the parameters of the optimiser.
        ranks: all processes.
        device: of the parameters.
        some_unused: True if a step may not use some parameters, which must then be searched for.
    """
    if ranks.size == 1:
        return module
    devices = [device.index] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(
        module, device_ids=devices, find_unused_parameters=some_unused
    )
