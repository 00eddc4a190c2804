"""Runs tasks on this machine, with the pools of the standard library."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from gimp_fast.errors import GimpError, cause_of
from gimp_fast.tasks.engine import LostTaskError, call_until, pass_on
from gimp_fast.tasks.processes import children_ignore_interrupts, without_main

Result = TypeVar("Result")
_thread = threading.local()


class ProcessEngine:
    """Runs tasks in a pool of processes.

    Raises:
        GimpError: when a task is submitted: processes cannot start.
    """

    def __init__(self, processes: int):
        try:
            # Forking a process that has threads (torch, HDF5) can hang the child.
            self._pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
        except OSError as error:  # no /dev/shm
            raise _cannot_start(error) from error

    def submit(self, function: Callable[..., Result], /, *arguments: Any) -> Future[Result]:
        try:
            with children_ignore_interrupts(), without_main():
                inner = self._pool.submit(function, *arguments)
        except OSError as error:  # too few processes or open files
            raise _cannot_start(error) from error
        except BrokenProcessPool as error:
            raise _why_killed(error) from error
        outer: Future[Result] = Future()
        inner.add_done_callback(lambda inner: pass_on(inner.result, outer, _why_killed))
        return outer

    def __enter__(self) -> ProcessEngine:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(cancel_futures=True)


def _cannot_start(error: OSError) -> GimpError:
    return GimpError(f"worker processes cannot start ({cause_of(error)}); use --workers 1")


def _why_killed(error: BaseException) -> LostTaskError | None:
    if not isinstance(error, BrokenProcessPool):
        return None
    return LostTaskError(
        f"a worker process was killed ({error}); if memory ran out, use --workers 1"
    )


class ThreadEngine:
    """Runs tasks that start processes of their own, at most ``slots`` at a time."""

    def __init__(self, slots: int):
        self._stopping = threading.Event()
        places = itertools.count()
        self._pool = ThreadPoolExecutor(slots, initializer=_take_place, initargs=(places,))

    def submit(self, function: Callable[..., Result], /, *arguments: Any) -> Future[Result]:
        return self._pool.submit(call_until, self._stopping.is_set, function, arguments)

    def __enter__(self) -> ThreadEngine:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopping.set()
        self._pool.shutdown(cancel_futures=True)


def _take_place(places: itertools.count[int]) -> None:
    _thread.place = next(places)


def place() -> int:
    """Which of the tasks that run at the same time this is, from 0; 0 outside a ThreadEngine."""
    return getattr(_thread, "place", 0)
