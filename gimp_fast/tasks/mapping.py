"""Maps a function over many items, in processes of this machine or on a cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from gimp_fast.errors import GimpError, one_line
from gimp_fast.tasks.cluster import ClusterEngine
from gimp_fast.tasks.engine import Engine
from gimp_fast.tasks.local import ProcessEngine
from gimp_fast.tasks.processes import available_cores
from gimp_fast.tasks.shared_files import with_absolute_paths

Item = TypeVar("Item")
Result = TypeVar("Result")
# With fewer items, processes cost more than they save: each first imports numpy and pandas.
FEWEST = 64
_CHUNK = 4  # items of a task


def parallel_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int | None = None,
    scheduler: str | None = None,
) -> Iterator[Result]:
    """Results of a function in other processes, in the order of the items.

    Args:
        function: importable by name; what it raises is raised here.
        items: picklable. The workers of a cluster get absolute paths.
        workers: processes of this machine; None for one per core. With one, or with fewer items
            than ``FEWEST``, everything runs in this process.
        scheduler: of a cluster that does it instead, as of :class:`ClusterEngine`.
    """
    items = list(items)
    if scheduler is not None:
        items = list(map(with_absolute_paths, items))
        engine: Engine = ClusterEngine(scheduler)
    else:
        workers = available_cores() if workers is None else workers
        if workers <= 1 or len(items) < FEWEST:
            yield from map(function, items)
            return
        engine = ProcessEngine(workers)
    with engine:
        chunks = [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]
        futures = deque(engine.submit(_map_chunk, function, chunk) for chunk in chunks)
        while futures:  # a future that is done with is forgotten, and its results with it
            try:
                results = futures.popleft().result()
            except MemoryError as error:
                raise GimpError(
                    f"memory ran out in a worker process ({one_line(error)}); use --workers 1"
                ) from error
            yield from results


def _map_chunk(function: Callable[[Item], Result], chunk: Sequence[Item]) -> list[Result]:
    return list(map(function, chunk))
