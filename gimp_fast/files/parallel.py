"""Maps a function over many files in worker processes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import ModuleType
from typing import TypeVar

from gimp_fast.errors import GimpError, cause_of, one_line

Item = TypeVar("Item")
Result = TypeVar("Result")
# With fewer items, processes cost more than they save: each first imports numpy and pandas.
FEWEST = 64


def available_cores() -> int:
    """Cores that this process may use; a scheduler may allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None
) -> Iterator[Result]:
    """Results of a function in worker processes, in the order of the items.

    Args:
        function: importable by name; what it raises is raised here.
        items: picklable.
        workers: processes; None for one per core. With one, or with fewer items than
            ``FEWEST``, everything runs in this process.
    """
    items = list(items)
    workers = available_cores() if workers is None else workers
    if workers <= 1 or len(items) < FEWEST:
        yield from map(function, items)
        return
    try:
        # Forking a process that has threads (torch, HDF5) can hang the child.
        pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
        with children_ignore_interrupts(), _without_main():
            results = pool.map(function, items, chunksize=4)
    except OSError as error:  # no /dev/shm, or too few processes or open files
        raise GimpError(
            f"worker processes cannot start ({cause_of(error)}); use --workers 1"
        ) from error
    try:
        yield from results
    except BrokenProcessPool as error:
        raise GimpError(
            f"a worker process was killed ({error}); if memory ran out, use --workers 1"
        ) from error
    except MemoryError as error:
        raise GimpError(
            f"memory ran out in a worker process ({one_line(error)}); use --workers 1"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Processes that start within the block do not run the user's script a second time.

    The function to call is in a module of its own, so they need nothing of the script. Without
    this, a script would need `if __name__ == "__main__":` around all that it does.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def children_ignore_interrupts() -> Iterator[None]:
    """Processes that start within the block never see Ctrl-C: this one ends them.

    Otherwise each would print a traceback of its own. Here the signal waits until the block ends.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
