"""The order of an epoch, and batches that are read ahead.

The data of a step depend on the seed, the epoch, the step and a patient's place in the batch only:
the number of reading processes, the number of ranks and the step at which a run resumes change
nothing.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from gimp_fast.errors import GimpError, is_out_of_memory, one_line
from gimp_fast.tasks.processes import children_ignore_interrupts
from gimp_fast.training.distributed import split_evenly

PREFETCH = 2  # batches that each process reads ahead


@dataclass(frozen=True)
class StepPlan:
    """What one rank reads for one step."""

    step: int  # number of the step in its epoch
    case_ids: tuple[str, ...]  # the patients of this rank
    seed: tuple[int, ...] = ()  # of the epoch
    place: int = 0  # position of the first of them in the batch of all ranks
    total: int = 0  # patients in the batch of all ranks

    def rngs(self) -> list[np.random.Generator]:
        """A random generator for each patient."""
        places = range(self.place, self.place + len(self.case_ids))
        return [np.random.default_rng([*self.seed, self.step, place]) for place in places]


def plan_epoch(
    case_ids: Sequence[str],
    batch_size: int,
    seed: Sequence[int],
    *,
    shuffle: bool = True,
    rank: int = 0,
    world_size: int = 1,
    first_step: int = 0,
) -> list[StepPlan]:
    """The steps of an epoch.

    Batch sizes differ by at most one, because a last batch of a single patient would hold no
    triplet.

    Args:
        case_ids: all patients of the epoch.
        batch_size: patients per step, of all ranks together.
        seed: non-negative integers, e.g. seed, stage and epoch.
        shuffle: False keeps the order of ``case_ids``.
        rank, world_size: which part of each batch to return, and the number of parts.
        first_step: steps before it are left out.

    Raises:
        ValueError: a batch would leave a rank without a patient.
    """
    order = list(case_ids)
    if shuffle:
        rng = np.random.default_rng([*seed])
        order = [case_ids[i] for i in rng.permutation(len(case_ids))]
    steps = num_batches(len(order), batch_size)
    if len(order) // steps < world_size:
        raise ValueError(f"{world_size} ranks share batches of {len(order) // steps} patients")
    plans = []
    for step, batch in enumerate(split_evenly(len(order), steps)):
        share = split_evenly(len(batch), world_size)[rank]
        cases = tuple(order[batch[place]] for place in share)
        plans.append(StepPlan(step, cases, tuple(seed), int(share[0]), len(batch)))
    return plans[first_step:]


def num_batches(num_patients: int, batch_size: int) -> int:
    return max(1, -(-num_patients // batch_size))


class BatchLoader:
    """Reads the batches of plans, in order, in processes that read ahead.

    The processes start with the first epoch and stay. Each opens the cohort's files itself; only
    plans are sent to it, and only batches come back.

    Args:
        fetch: plan -> batch; picklable, and a function of the plan alone.
        workers: reading processes; 0 reads in this process, on demand.
        pin_memory: put batches into page-locked memory, for a GPU.
    """

    def __init__(
        self, fetch: Callable[[StepPlan], Any], workers: int = 0, pin_memory: bool = False
    ):
        self._plans: list[StepPlan] = []
        self._loader = DataLoader(
            _Fetched(fetch),
            batch_size=None,
            sampler=self._plans,
            num_workers=workers,
            prefetch_factor=PREFETCH if workers else None,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            collate_fn=_as_it_is,
            # Its own: the loader draws a seed each epoch, which would change dropout otherwise.
            generator=torch.Generator(),
        )

    def __call__(self, plans: Iterable[StepPlan]) -> Iterator[Any]:
        """The batches of the plans.

        Raises:
            GimpError: a batch cannot be read, or a reading process was killed or cannot start.
            MemoryError: memory ran out while a batch was read.
        """
        self._plans[:] = plans  # the loader's sampler cannot be replaced
        try:
            if self._loader.num_workers:
                # Without shared memory torch would fail half-way, and print an error of its own.
                multiprocessing.Semaphore()
            with children_ignore_interrupts():
                batches = iter(self._loader)
        except OSError as error:
            raise _no_processes(error) from error
        try:
            for batch in batches:
                if isinstance(batch, (GimpError, MemoryError)):
                    raise batch
                yield batch
        except RuntimeError as error:
            if not any(word in str(error) for word in ("worker", "shared memory", "shm")):
                raise
            raise _no_processes(error) from error


def ahead_on_device(batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
    """Batches on their device; a GPU copies the next one while it computes with this one.

    Args:
        batches: what ``BatchLoader`` yields; page-locked memory lets copy and computation overlap.
        device: target.
    """
    if device.type != "cuda":
        for batch in batches:
            yield batch.to(device)
        return
    copying = torch.cuda.Stream(device)

    def start(batch: Any) -> Any:
        with torch.cuda.stream(copying):
            return batch.to(device)

    waiting = None
    for batch in batches:
        following = start(batch)
        if waiting is not None:
            yield waiting
        torch.cuda.current_stream(device).wait_stream(copying)
        following.record_stream(torch.cuda.current_stream(device))
        waiting = following
    if waiting is not None:
        yield waiting


def _no_processes(error: Exception) -> GimpError:
    return GimpError(
        f"a process that reads batches ended or cannot start ({one_line(error)}); if memory, "
        "shared memory (/dev/shm) or open files ran out, read in this process: --set workers=0"
    )


def _as_it_is(batch: Any) -> Any:
    return batch


@dataclass
class _Fetched(Dataset):
    fetch: Callable[[StepPlan], Any]

    def __getitem__(self, plan: StepPlan) -> Any:
        try:
            return self.fetch(plan)
        # Raised here, they would arrive wrapped in the traceback of another process.
        except GimpError as error:
            return error
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return MemoryError(f"while a batch was read: {one_line(error)}")
