"""Processes of this machine: how many fit, and how they start without harm."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import ModuleType


def available_cores() -> int:
    """Cores that this process may use; a scheduler may allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def without_main() -> Iterator[None]:
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
