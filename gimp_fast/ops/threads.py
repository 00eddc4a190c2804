"""Independent pieces of work side by side, each on one thread of the CPU."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def run_side_by_side(tasks: list[Callable[[], None]]) -> None:
    """Run the tasks, as many at a time as torch has threads, and raise what one of them raises.

    torch would share every single product among its threads, which then wait for each other: for
    a moment, thousands of times, and for much longer where another process wants the same core.
    The threads live as long as the call, so that a process can be forked before and after it.
    """
    threads = min(torch.get_num_threads(), len(tasks))
    if threads <= 1:
        for task in tasks:
            task()
        return
    before = torch.get_num_threads()
    # The number of threads is each thread's own setting; so is what autograd and autocast do.
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for done in [pool.submit(_without_gradients, task) for task in tasks]:
                done.result()
    finally:
        # It is also what threads start with from then on.
        torch.set_num_threads(before)


def _without_gradients(task: Callable[[], None]) -> None:
    with torch.no_grad():
        task()
