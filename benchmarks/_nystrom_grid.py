"""The grid of the Nyström benchmark: widths × lengths × threads × modes, on a CPU in fp32."""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import torch
from _common import time_interleaved, write_results
from _nystrom_measure import MODES, WARM_UP_TO, check, make_calls, peak_or_reason, why_not
from _nystrom_peers import Setting

from gimp_fast import processor
from gimp_fast.ops.product_library import ENVIRONMENT_VARIABLE, choice

# Width of the layer -> its heads, width of a head, and landmarks.
DIMS = {64: (4, 16, 32), 128: (4, 32, 64), 256: (8, 32, 128), 512: (8, 64, 256)}
LENGTHS = [40, 300, 700, 1500, 6000, 15000, 148569]
THREADS = [1, 2]
PEER = "nystrom-attention"
OURS = ("gimp_fast", "gimp_fast, backend=torch")
PEERS = [*OURS, PEER, "two SDPA calls + pinv", "exact SDPA"]
# Width and length whose peak memory is measured.
MEMORY_AT = (512, 6000)
# Longer exact attention would leave the others few turns.
MAX_EXACT = 1500
# In fp64, longer bags take too long; their code is that of the shorter ones.
CHECK_UP_TO = 1500


def run_grid(options: argparse.Namespace) -> None:
    """Check, time and print every cell; write the results after each width.

    The options that are None become those of the whole grid.
    """
    dims, lengths = options.dims or list(DIMS), options.n or LENGTHS
    threads, repeats = options.threads or THREADS, options.repeats or 60
    max_exact, memory_at = options.max_exact or MAX_EXACT, MEMORY_AT
    if options.smoke:
        dims, lengths, threads, repeats, memory_at = [64], [20, 40], THREADS, 2, (64, 40)
    names = [name for name in PEERS if name in (options.peers or PEERS)]
    begin, before = time.perf_counter(), torch.get_num_threads()
    results: dict[str, Any] = {
        "peer_version": options.peer_version,
        "products": choice()._asdict(),
        "threads": threads,
        # Of the minute before: other work on the cores makes the figures worthless.
        "load_average": round(os.getloadavg()[0], 2),
        "errors": {},
        "rows": [],
        "peak_mib": {},
    }
    try:
        for dim in sorted(dims):
            setting = _setting(dim)
            print(f"\n{_sizes(setting)}", flush=True)
            results["errors"][dim] = check_lengths(names, setting, lengths)
            for n in sorted(lengths):
                for count in threads:
                    torch.set_num_threads(count)
                    for mode in MODES:
                        row = time_cell(names, setting, n, mode, max_exact, repeats, options.budget)
                        results["rows"].append({"dim": dim, "threads": count} | row)
                        print_cell(results["rows"][-1])
            torch.set_num_threads(before)
            if dim == memory_at[0] and memory_at[1] in lengths:
                results["peak_mib"] = measure_memory(names, setting, memory_at[1])
            results["smallest_ratio"] = {name: smallest(results["rows"], name) for name in OURS}
            results["seconds"] = round(time.perf_counter() - begin)
            if not options.no_write:
                stem = f"{processor.vendor() or 'unknown-vendor'}-nystrom_attention_grid"
                if forced := os.environ.get(ENVIRONMENT_VARIABLE):
                    stem += f"-products_{forced}"
                print(f"wrote {write_results(stem, 'cpu', results, options.results)}", flush=True)
    finally:
        torch.set_num_threads(before)
    print_summary(results["rows"])


def _setting(dim: int) -> Setting:
    heads, dim_head, landmarks = DIMS[dim]
    return Setting("module", "fp32", "cpu", 1, heads, dim_head, landmarks)


def _sizes(setting: Setting) -> str:
    return (
        f"dim {setting.dim}, {setting.heads} heads of {setting.dim_head}, "
        f"{setting.landmarks} landmarks"
    )


def check_lengths(
    names: list[str], setting: Setting, lengths: list[int]
) -> dict[str, dict[str, float]]:
    """Errors against fp64, of ours also at the lengths of the grid; exits if a peer is wrong."""
    short = [n for n in lengths if n <= CHECK_UP_TO]
    ours = [name for name in names if name in OURS]
    others = [name for name in names if name not in OURS]
    return check(ours, setting, [None, *short]) | check(others, setting)


def time_cell(
    names: list[str],
    setting: Setting,
    n: int,
    mode: str,
    max_exact: int,
    repeats: int,
    budget_s: float,
) -> dict[str, Any]:
    """Times of the peers, which take turns, and the speed of each beside nystrom-attention."""
    reasons = {name: why_not(name, setting, n, MODES[mode], max_exact) for name in names}
    fit = [name for name in names if reasons[name] is None]
    calls = make_calls(fit, setting, n, mode)
    # Enough turns of minutes each are two.
    budget_s = budget_s if n <= WARM_UP_TO else 0
    peers = time_interleaved(calls, device="cpu", repeats=repeats, warmup=0, budget_s=budget_s)
    if PEER in peers:
        for row in peers.values():
            row["ratio"] = peers[PEER]["median_ms"] / row["median_ms"]
    skipped = {name: reason for name, reason in reasons.items() if reason is not None}
    return {"n": n, "mode": mode, "peers": peers, "skipped": skipped}


def measure_memory(names: list[str], setting: Setting, n: int) -> dict[str, dict[str, float | str]]:
    """Peak memory of each mode and peer in MiB, or why the peer does not run."""
    print(f"\npeak memory at dim {setting.dim}, N = {n}", flush=True)
    peaks: dict[str, dict[str, float | str]] = {mode: {} for mode in MODES}
    for mode, found in peaks.items():
        for name in names:
            found[name] = peak = peak_or_reason(name, setting, n, mode, None)
            shown = peak if isinstance(peak, str) else f"{peak:,.0f} MiB"
            print(f"  {mode:<18} {name:<24} {shown}", flush=True)
    return peaks


def smallest(rows: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """The cell where a peer is slowest beside nystrom-attention; None if there is none."""
    found = [
        {"ratio": row["peers"][name]["ratio"]}
        | {key: row[key] for key in ("dim", "n", "threads", "mode")}
        for row in rows
        if "ratio" in row["peers"].get(name, {})
    ]
    return min(found, key=lambda cell: cell["ratio"], default=None)


def print_cell(row: dict[str, Any]) -> None:
    shown = [
        f"{name} {peer['median_ms']:,.2f} ms"
        + (f" {peer['ratio']:.2f}×" if "ratio" in peer and name != PEER else "")
        for name, peer in row["peers"].items()
    ]
    turns = next((peer["repeats"] for peer in row["peers"].values()), 0)
    where = f"N {row['n']:>6}, {row['threads']} threads, {row['mode']:<18}"
    print(f"  {where} {'; '.join(shown)} ({turns} turns)", flush=True)


def print_summary(rows: list[dict[str, Any]]) -> None:
    """The ratios of gimp_fast to nystrom-attention, and where they are smallest."""
    name = OURS[0]
    lengths = sorted({row["n"] for row in rows})
    dims = sorted({row["dim"] for row in rows})
    cells = {
        (row["threads"], row["mode"], row["dim"], row["n"]): row["peers"].get(name, {}).get("ratio")
        for row in rows
    }
    for threads, mode in dict.fromkeys((row["threads"], row["mode"]) for row in rows):
        print(f"\n{name} beside {PEER}, {threads} threads, {mode}")
        print("  dim  N " + "".join(f"{n:>9}" for n in lengths))
        for dim in dims:
            ratios = [cells.get((threads, mode, dim, n)) for n in lengths]
            shown = "".join(f"{f'{ratio:.2f}×' if ratio else '–':>9}" for ratio in ratios)
            print(f"  {dim:>3}    {shown}")
    for name in OURS:
        cell = smallest(rows, name)
        if cell:
            where = f"dim {cell['dim']}, N = {cell['n']}, {cell['threads']} threads, {cell['mode']}"
            print(f"\nsmallest ratio of {name}: {cell['ratio']:.2f}× at {where}")
