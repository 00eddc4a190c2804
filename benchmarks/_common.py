"""What the benchmarks share: options, interleaved timing, peak memory, results."""

from __future__ import annotations

import argparse
import gc
import json
import math
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from gimp_fast import processor
from gimp_fast.files.atomic import write_text

RESULTS = Path(__file__).resolve().parent / "results"
MIB = 2**20
MIN_TURNS = 2


def add_shared_options(parser: argparse.ArgumentParser, device: str | None = None) -> None:
    """Add the options that every script must accept from ``make bench BENCH_ARGS=…``.

    Args:
        parser: of the script.
        device: help text of ``--device``.
    """
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help=device)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--no-write", action="store_true", help="only print")


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def time_interleaved(
    calls: dict[str, Callable[[], Any]],
    *,
    device: str,
    repeats: int,
    warmup: int = 1,
    budget_s: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, dict[str, float]]:
    """Median, fastest and slowest milliseconds of every call, and how often it was timed.

    The peers take turns, so that a noisy moment of the machine affects all of them. No turn starts
    after ``budget_s`` seconds, except that there are at least ``MIN_TURNS``. On a busy machine,
    ``time.process_time`` is the steadier clock for one thread.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    begin = time.perf_counter()
    for turn in range(warmup + repeats):
        if turn >= warmup + MIN_TURNS and time.perf_counter() - begin > budget_s:
            break
        for name, call in calls.items():
            synchronise(device)
            start = clock()
            call()
            synchronise(device)
            if turn >= warmup:
                seconds[name].append(clock() - start)
    return {
        name: {
            "median_ms": 1e3 * statistics.median(taken),
            "min_ms": 1e3 * min(taken),
            "max_ms": 1e3 * max(taken),
            "repeats": len(taken),
        }
        for name, taken in seconds.items()
    }


def peak_memory_mib(
    prepare: Callable[..., Callable[[], Any]], *arguments: Any, device: str
) -> float:
    """Peak memory of one call above the memory in use before it.

    On a GPU this is what torch's allocator counts. On the CPU it is the resident set of a fresh
    process, which takes seconds to start.

    Args:
        prepare: importable function; ``prepare(*arguments)`` allocates the inputs and returns the
            call.
        device: ``"cuda"`` or ``"cpu"``.

    Raises:
        torch.OutOfMemoryError: the call did not fit on the GPU.
        RuntimeError: the process ended without an answer: the system may have killed it.
    """
    if device == "cuda":
        try:
            return _gpu_peak_mib(prepare(*arguments))
        finally:
            gc.collect()
            torch.cuda.empty_cache()
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_peak, args=(sender, prepare, arguments))
    process.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        answer = None
    process.join()
    if answer is None:
        raise RuntimeError(f"the measured process ended with code {process.exitcode}")
    return answer


def _gpu_peak_mib(call: Callable[[], Any]) -> float:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / MIB


def _send_peak(sender: Any, prepare: Callable[..., Any], arguments: tuple) -> None:
    call = prepare(*arguments)
    # Reset the high-water mark, which otherwise starts at the peak of the parent process.
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = _proc_mib("self/status", "VmHWM")
    call()
    sender.send(_proc_mib("self/status", "VmHWM") - before)


def _proc_mib(file: str, field: str) -> float:
    for line in Path("/proc", file).read_text(encoding="utf-8").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/{file} has no {field}")


def limit_gpu_memory(cap_gb: float | None) -> None:
    """Limit torch's allocator to ``cap_gb`` GiB of the GPU; None for no limit."""
    if cap_gb is not None:
        total = torch.cuda.get_device_properties("cuda").total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, cap_gb * 2**30 / total))


def free_memory_mib(device: str) -> float:
    """The memory that is free now, on this machine or its GPU."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0] / MIB
    return _proc_mib("meminfo", "MemAvailable")


def origin(device: str) -> dict[str, Any]:
    """The origin of the figures: device, versions, revision of the code."""
    # Not above: some scripts measure what a process holds.
    from gimp_fast.ops.product_library import choice

    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=folder, capture_output=True, encoding="utf-8", check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return ""  # a copy without its history
        return done.stdout.strip()

    sources = ("../gimp_fast", "../kernels", "../csrc")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", *sources)
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else processor.name(),
        "vendor": processor.vendor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "products": choice().library,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "revision": (git("rev-parse", "HEAD") or "unknown") + ("+changes" if changed else ""),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def write_results(stem: str, device: str, results: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write ``<folder>/<device>-<stem>.json``; the device is the GPU's name, or ``cpu``."""
    name = torch.cuda.get_device_name().replace(" ", "-") if device == "cuda" else "cpu"
    path = folder / f"{name}-{stem}.json"
    folder.mkdir(exist_ok=True)
    # Whole or not at all: a script that is stopped keeps the results before the last.
    write_text(path, json.dumps(origin(device) | results, indent=2) + "\n")
    return path
