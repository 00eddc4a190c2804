"""What it costs to start an engine of tasks, and to pass tasks through it.

python benchmarks/task_engines.py [--tasks 1000] [--workers 2]

Each engine starts in a process of its own, as a command starts it: the pool of processes of this
machine, and a scheduler of dask with workers on this machine. Measured are the seconds until the
first result, and then until the last of many tasks that do nothing; and the seconds of CPU in all
processes together, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import resource
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
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in ENGINES}
    for _ in range(arguments.repeats):
        for name in ENGINES:  # in turns, so that a noisy moment affects both
            command = [sys.executable, __file__, "--measure", name]
            command += ["--tasks", str(arguments.tasks), "--workers", str(arguments.workers)]
            before = cpu_of_children()
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found[name].append((*map(float, printed.split()), cpu_of_children() - before))
    rows = []
    for name, times in found.items():
        first, rest, cpu = map(statistics.median, zip(*times, strict=True))
        task_ms = 1000 * rest / arguments.tasks
        rows.append({"engine": name, "start_s": first, "task_ms": task_ms, "cpu_s": cpu})
        print(f"{name:<10} {first:.2f} s to start, {task_ms:.2f} ms a task, {cpu:.2f} s of CPU")
    if not arguments.no_write:
        facts = {"tasks": arguments.tasks, "workers": arguments.workers, "rows": rows}
        print(f"wrote {write_results('task_engines', 'cpu', facts, arguments.results)}")


def cpu_of_children() -> float:
    """Seconds of CPU of all processes that have ended, and of those that they waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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
