"""A day with a GPU, in minutes: tests, then benchmarks, in parts that are run and kept one by one.

python benchmarks/gpu_day.py [--parts 1 2] [--budget 140] [--results FOLDER] [--dry-run]

    1  the tests that need a GPU, Triton's on the GPU, compute-sanitizer
    2  the operator beside its peers, at 6,000 and 148,569 tokens
    3  training: time, memory and the largest batch, with 24 GB of the GPU
    4  configurations of the kernels beside those of the table
    5  the whole layer, the masked L1, the masked reconstruction

A part has ``--budget`` seconds. What has not ended by then is stopped, and the next part begins.
Results are written after every process, with what a stopped one had written, to one file:
``<GPU>-gpu_day.json``. What the processes print is in ``build/gpu-day``, or ``--logs``.

--dry-run needs no GPU: the same scripts at sizes too small to measure anything.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from _common import RESULTS, write_results
from _gpu_plan import Command, Part, command_line, plan

ROOT = Path(__file__).resolve().parents[1]
# With less time a process would only load its libraries.
SHORTEST_S = 5.0


def run_process(command: list[str], log: Path, limit_s: float) -> int | None:
    """Exit code; None if the process was stopped after ``limit_s`` seconds.

    Processes that it started are stopped with it.
    """
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def run_command(command: Command, log: Path, limit_s: float) -> dict[str, Any]:
    """What became of one process, and the results that it wrote."""
    if limit_s < SHORTEST_S:
        return {"name": command.name, "outcome": "left out", "seconds": 0.0, "results": {}}
    begin, log_begin = time.perf_counter(), log.stat().st_size if log.exists() else 0
    with tempfile.TemporaryDirectory() as folder:
        code = run_process(command_line(command, folder), log, limit_s)
        results = {path.stem: read(path) for path in sorted(Path(folder).glob("*.json"))}
    outcome = "stopped" if code is None else "failed" if code else "done"
    return {
        "name": command.name,
        "arguments": command.arguments,
        "outcome": outcome,
        "code": code,
        "seconds": round(time.perf_counter() - begin, 1),
        "last_line": last_line(log, log_begin),
        "results": results,
    }


def read(path: Path) -> Any:
    """A result file; None if its process was stopped while it wrote."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        return None


def last_line(log: Path, begin: int) -> str:
    lines = log.read_bytes()[begin:].decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


def print_part(part: Part, done: list[dict[str, Any]], log: Path) -> None:
    seconds = sum(row["seconds"] for row in done)
    outcomes = ", ".join(f"{row['name']} {row['outcome']}" for row in done)
    failed = [row["last_line"] for row in done if row["outcome"] == "failed"]
    why = f" ({failed[0]}; {log})" if failed else ""
    print(f"part {part.number}, {part.title}, {seconds:.0f} s: {outcomes}{why}", flush=True)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", type=int, nargs="+", choices=range(1, 6), default=range(1, 6))
    parser.add_argument("--budget", type=float, default=140.0, help="seconds of a part")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--logs", type=Path, default=ROOT / "build" / "gpu-day")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes, on a CPU")
    options = parser.parse_args(argv)
    if not options.dry_run and not torch.cuda.is_available():
        parser.error("no CUDA GPU is visible to torch; --dry-run needs none")
    return options


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    device = "cpu" if options.dry_run else "cuda"
    options.logs.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"budget_s": options.budget, "parts": {}}
    path = None
    for part in plan(options.dry_run):
        if part.number not in options.parts:
            continue
        log = options.logs / f"part-{part.number}.log"
        log.unlink(missing_ok=True)
        end, done = time.perf_counter() + options.budget, []
        results["parts"][part.number] = {"title": part.title, "processes": done}
        for command in part.commands:
            done.append(run_command(command, log, end - time.perf_counter()))
            path = write_results("gpu_day", device, results, options.results)
        print_part(part, done, log)
    print(f"wrote {path}")
    processes = [row for part in results["parts"].values() for row in part["processes"]]
    return int(any(row["outcome"] == "failed" for row in processes))


if __name__ == "__main__":
    raise SystemExit(main())
