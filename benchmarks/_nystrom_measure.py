"""How the Nyström benchmarks check, count and time the peers of ``_nystrom_peers``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from _common import free_memory_mib, peak_memory_mib, time_interleaved
from _nystrom_peers import (
    DTYPES,
    PEERS,
    Setting,
    errors,
    make_inputs,
    make_layer,
    prepare_step,
    step,
)

MODES = {"forward": False, "forward + backward": True}
TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2}
MATMUL = "matrix product"
# On the CPU, longer bags need no warm-up, which would take minutes: shorter ones came before.
WARM_UP_TO = 15000


def flop(setting: Setting, n: int, backward: bool) -> int:
    """Flop of one call, by the formula in the docstring of ``nystrom_attention.py``."""
    m, d = setting.landmarks, setting.dim_head
    one = 8 * n * m * d + 2 * m * m * d + 29 * m**3 if n > m else 4 * n * n * d
    forward = setting.batch * setting.heads * one
    if setting.level == "module":
        forward += 8 * setting.batch * n * setting.dim**2
    return (3 if backward else 1) * forward


def make_matmul(setting: Setting, size: int) -> Callable[[], torch.Tensor]:
    a, b = torch.randn(2, size, size, device=setting.device, dtype=DTYPES[setting.dtype])
    return lambda: a @ b


def check(
    names: list[str], setting: Setting, lengths: list[int | None] | None = None
) -> dict[str, dict[str, float]]:
    """The largest errors of every peer against fp64; exits if one is wrong.

    Args:
        names: of the peers.
        setting: of all lengths.
        lengths: None among them is the length where all correct peers agree, and the default.
    """
    found: dict[str, dict[str, float]] = {}
    for name in names:
        at_lengths = [errors(name, setting, n) for n in lengths or [None]]
        parts = {part: max(at[part] for at in at_lengths) for part in at_lengths[0]}
        bounded = setting.dtype == "fp32" or PEERS[name].fp32_pinv
        listed = ", ".join(f"{part} {value:.1e}" for part, value in parts.items())
        print(f"  {name:<34} error against fp64: {listed}", flush=True)
        if bounded and not max(parts.values()) <= TOLERANCE[setting.dtype]:
            raise SystemExit(f"{name} is wrong by {listed}; nothing was timed")
        found[name] = parts
    return found


def why_not(
    name: str, setting: Setting, n: int, backward: bool, max_exact: int | None
) -> str | None:
    """Why a peer does not run; None if it may. A GPU says itself that its memory is full."""
    if PEERS[name].exact and max_exact is not None and n > max_exact:
        return f"takes time ~ N²; --max-exact is {max_exact}"
    # On a CPU the system would start to swap.
    needed = PEERS[name].floats(setting, n, backward) * 4 / 2**30
    free = free_memory_mib(setting.device) / 1024
    if setting.device == "cpu" and needed > free:
        return f"needs about {needed:.1f} GiB, {free:.1f} GiB are free"
    return None


def peak_or_reason(
    name: str, setting: Setting, n: int, mode: str, max_exact: int | None
) -> float | str:
    """Peak memory in MiB, or why the peer does not run."""
    backward = MODES[mode]
    reason = why_not(name, setting, n, backward, max_exact)
    if reason is not None:
        return reason
    try:
        return peak_memory_mib(prepare_step, name, setting, n, backward, device=setting.device)
    except RuntimeError as error:
        return str(error).splitlines()[0]


def make_calls(
    names: list[str], setting: Setting, n: int, mode: str
) -> dict[str, Callable[[], Any]]:
    """A step of each peer on the same input, and warm."""
    inputs = make_inputs(setting, n)
    calls = {
        name: partial(step, make_layer(name, setting), inputs, setting, MODES[mode])
        for name in names
    }
    if setting.device == "cuda" or n <= WARM_UP_TO:
        for call in calls.values():
            call()
    return calls


def time_peers(
    names: list[str], setting: Setting, n: int, mode: str, options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Times of the peers, which take turns, and the floor at the rate of the matrix product."""
    matmul = make_matmul(setting, options.matmul)
    matmul()
    calls = {MATMUL: matmul} | make_calls(names, setting, n, mode)
    rows = time_interleaved(
        calls, device=setting.device, repeats=options.repeats, warmup=0, budget_s=options.budget
    )
    rate = 2 * options.matmul**3 / rows.pop(MATMUL)["median_ms"]  # flop a millisecond
    floor = {"floor_ms": flop(setting, n, MODES[mode]) / rate, "matmul_tflops": rate / 1e9}
    return {name: row | floor for name, row in rows.items()}
