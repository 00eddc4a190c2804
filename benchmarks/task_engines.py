"""What it costs to start an engine of tasks, and to pass tasks through it.

python benchmarks/task_engines.py [--tasks 1000] [--workers 2]

Each engine starts in a process of its own, as a command starts it: the pool of processes of this
machine, and a scheduler of dask with workers on this machine. Measured are the seconds until the
first result, and then until the last of many tasks that do nothing.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from _common import add_shared_options, write_results

ENGINES = ("processes", "dask")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--measure", choices=ENGINES, help=argparse.SUPPRESS)
    add_shared_options(parser, device="no difference")
    arguments = parser.parse_args()
    if arguments.measure:
        print(*measure(arguments.measure, arguments.tasks, arguments.workers))
        return
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ENGINES}
    for _ in range(arguments.repeats):
        for name in ENGINES:  # in turns, so that a noisy moment affects both
            command = [sys.executable, __file__, "--measure", name]
            command += ["--tasks", str(arguments.tasks), "--workers", str(arguments.workers)]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            first, rest = map(float, printed.split())
            found[name].append((first, rest))
    rows = [
        {
            "engine": name,
            "start_s": statistics.median(first for first, _ in times),
            "task_ms": 1000 * statistics.median(rest for _, rest in times) / arguments.tasks,
        }
        for name, times in found.items()
    ]
    for row in rows:
        print(f"{row['engine']:<10} {row['start_s']:.2f} s to start, {row['task_ms']:.2f} ms a task")
    if not arguments.no_write:
        facts = {"tasks": arguments.tasks, "workers": arguments.workers, "rows": rows}
        print(f"wrote {write_results('task_engines', 'cpu', facts, arguments.results)}")


def measure(name: str, tasks: int, workers: int) -> tuple[float, float]:
    """Seconds until the first result, and of all others."""
    began = time.perf_counter()
    if name == "dask":
        from distributed import LocalCluster

        from gimp_fast.tasks.cluster import ClusterEngine

        with (
            LocalCluster(workers, threads_per_worker=1, dashboard_address=None) as cluster,
            ClusterEngine(cluster.scheduler_address) as engine,
        ):
            return _pass_through(engine, tasks, began)
    from gimp_fast.tasks.local import ProcessEngine

    with ProcessEngine(workers) as engine:
        return _pass_through(engine, tasks, began)


def _pass_through(engine: object, tasks: int, began: float) -> tuple[float, float]:
    engine.submit(abs, -1).result()
    first = time.perf_counter()
    for future in [engine.submit(abs, number) for number in range(tasks)]:
        future.result()
    return first - began, time.perf_counter() - first


if __name__ == "__main__":
    main()
