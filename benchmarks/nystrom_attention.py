"""Nyström attention, forward and backward, beside its peers, for bags as long as whole slides.

python benchmarks/nystrom_attention.py [--device cuda] [--level op] [--n 6000 15000] [--batch 1 8]
                                       [--dtype fp32 bf16] [--cap-gb 24] [--smoke] [--no-write]
python benchmarks/nystrom_attention.py --grid [--dims 64 512] [--threads 1 2] [--n 40 6000]

All peers run in one process, in turns, after their outputs and gradients were compared with fp64.
bf16 means autocast, with fp32 weights. Peak memory is that of one step above the inputs; on the CPU
it is measured in a fresh process. A peer that does not run is listed with the reason.

Floor: the time of the arithmetic at the rate of a large product by torch, timed in turn with the
peers; where torch's library is slow, a layer can be below it. Forward flop, with C = H D:

    N > M     B H (8 N M D  +  2 M² D  +  29 M³)     products with N; landmark scores; 14.5 products
    N ≤ M     B H 4 N² D                             of M × M for the pseudo-inverse
    module    + 8 B N C²                             projections; the convolution is not counted

The backward pass is twice the forward pass; recomputation is not counted. Exact attention is
compared with the same floor.

``--grid`` compares layers of several widths on a CPU, from the bag of a gene encoder to the longest
slide, by one thread and by two. It has its own result file for each vendor of processors, and for
each library that ``GIMP_FAST_PRODUCTS`` forces.
"""

from __future__ import annotations

import argparse
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from _common import (
    add_shared_options,
    free_memory_mib,
    limit_gpu_memory,
    origin,
    write_results,
)
from _nystrom_grid import DIMS, run_grid
from _nystrom_measure import MODES, TOLERANCE, check, peak_or_reason, time_peers
from _nystrom_peers import PEERS, Setting

LENGTHS = [485, 1000, 6000, 15000, 50000, 148569]


def measure(
    names: list[str], setting: Setting, n: int, mode: str, options: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Records of the peers that ran, and of those that did not."""
    peaks = {name: peak_or_reason(name, setting, n, mode, options.max_exact) for name in names}
    skipped = {name: peak for name, peak in peaks.items() if isinstance(peak, str)}
    fit = [name for name in names if name not in skipped]
    # On a GPU one at a time: together, peers would evict each other's cached blocks.
    crowded = sum(peaks[name] for name in fit) > 0.5 * memory_mib(setting)
    apart = setting.device == "cuda" and crowded
    groups = [[name] for name in fit] if apart else [fit] if fit else []
    where = {"dtype": setting.dtype, "batch": setting.batch, "n": n, "mode": mode}
    rows = []
    for group in groups:
        if any(PEERS[name].compiled for name in group):
            torch.compiler.reset()  # otherwise the compiler gives up after a few lengths
        timed = time_peers(group, setting, n, mode, options)
        rows += [where | {"peer": name, "peak_mib": peaks[name]} | timed[name] for name in group]
        if setting.device == "cuda":
            torch.cuda.empty_cache()
    return rows, [where | {"peer": name, "reason": why} for name, why in skipped.items()]


def memory_mib(setting: Setting) -> float:
    """Free memory, or the part of a GPU's that may be used."""
    free = free_memory_mib(setting.device)
    return free if setting.cap_gb is None else min(free, 1024 * setting.cap_gb)


def print_rows(rows: list[dict[str, Any]], skipped: list[dict[str, Any]]) -> None:
    slowest = {row["peer"]: row["median_ms"] for row in rows}.get("nystrom-attention")
    for row in rows:
        peak = f"{row['peak_mib']:,.0f} MiB"
        gain = f"{slowest / row['median_ms']:6.2f}×" if slowest else "       "
        print(
            f"  {row['n']:>7} {row['peer']:<34} {row['median_ms']:>11,.2f} ms {gain}"
            f" {row['floor_ms'] / row['median_ms']:>7.1%} {peak:>12}  {row['repeats']:>3}",
            flush=True,
        )
    for row in skipped:
        print(f"  {row['n']:>7} {row['peer']:<34} {row['reason']}", flush=True)


def run(setting: Setting, options: argparse.Namespace) -> dict[str, Any]:
    """All results of one level, dtype and batch."""
    names = options.peers
    print(f"\n{setting.level}, {setting.dtype}, batch {setting.batch}", flush=True)
    result: dict[str, Any] = {"errors": check(names, setting), "rows": [], "skipped": []}
    for mode in MODES:
        print(f"\n{mode}: median, speed beside nystrom-attention, part of the floor, peak, repeats")
        for n in sorted(options.n):
            rows, skipped = measure(names, setting, n, mode, options)
            print_rows(rows, skipped)
            result["rows"] += rows
            result["skipped"] += skipped
    return result


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--level", choices=["module", "op"], default="module")
    parser.add_argument("--grid", action="store_true", help="widths, lengths and threads of a CPU")
    parser.add_argument("--dims", type=int, nargs="+", choices=list(DIMS), help="of the grid")
    parser.add_argument("--threads", type=int, nargs="+", help="of the grid; 1 2")
    parser.add_argument("--n", type=int, nargs="+", help="lengths of a bag")
    parser.add_argument("--batch", type=int, nargs="+", help="1 8 on a GPU, 1 on the CPU")
    parser.add_argument("--dtype", nargs="+", choices=list(TOLERANCE), help="fp32 bf16, or fp32")
    parser.add_argument(
        "--peers", nargs="+", choices=list(PEERS), metavar="PEER", help="only these"
    )
    parser.add_argument("--repeats", type=int, help="at most, for each peer; 15, of the grid 60")
    parser.add_argument("--budget", type=float, default=6.0, help="seconds of turns, about")
    parser.add_argument("--max-exact", type=int, help="longest bag of exact attention")
    parser.add_argument("--compile", action="store_true", help="compile on the CPU too")
    parser.add_argument("--cap-gb", type=float, help="let torch have this much of the GPU")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it runs")
    add_shared_options(parser)
    options = parser.parse_args(argv)
    try:
        options.peer_version = version("nystrom-attention")
    except PackageNotFoundError:
        parser.error("nystrom-attention is not installed; the extra gimp-fast[bench] has it")
    cuda = options.device == "cuda"
    if cuda and not torch.cuda.is_available():
        parser.error("no CUDA GPU is visible to torch")
    if options.cap_gb is not None and not cuda:
        parser.error("--cap-gb needs --device cuda")
    if options.grid and (cuda or options.level == "op" or options.batch or options.dtype):
        parser.error("--grid times whole layers of one bag on the CPU, in fp32")
    if not options.grid and (options.dims or options.threads):
        parser.error("--dims and --threads need --grid")
    if options.grid:
        return options
    options.n, options.repeats = options.n or LENGTHS, options.repeats or 15
    options.batch = options.batch or ([1, 8] if cuda else [1])
    options.dtype = options.dtype or (["fp32", "bf16"] if cuda else ["fp32"])
    options.matmul = 8192 if cuda else 2048
    if options.max_exact is None and not cuda:
        options.max_exact = 15000
    options.sizes = {}
    if options.smoke:
        options.n, options.repeats, options.matmul, options.max_exact = [40], 2, 128, 30
        options.sizes = {"heads": 2, "dim_head": 8, "landmarks": 16}
    if options.peers is None:
        # On the CPU, auto picks that backend.
        left_out = set() if cuda else {"gimp_fast, backend=torch"}
        if not cuda and not options.compile:
            left_out.add("nystrom-attention, torch.compile")
        options.peers = [name for name in PEERS if name not in left_out]
    return options


def write(result: dict[str, Any], results: dict[str, Any], setting: Setting, folder: Path) -> None:
    """Write all results so far, and the picture of the last."""
    stem = "nystrom_attention" + ("" if setting.level == "module" else "_op")
    path = write_results(stem, setting.device, results, folder)
    print(f"\nwrote {path}")
    if not result["rows"]:
        return
    # Not above: every process whose memory is measured imports this script.
    from _plots import plot_scaling

    picture = path.with_name(f"{path.stem}-{setting.dtype}-batch{setting.batch}.png")
    title = (
        f"Nyström attention, {setting.level}, {setting.dtype}, batch {setting.batch}, "
        f"{setting.heads} heads of {setting.dim_head}, {setting.landmarks} landmarks\n"
        f"{origin(setting.device)['device']}"
    )
    plot_scaling(result["rows"], picture, title)
    print(f"wrote {picture}")


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    if options.grid:
        run_grid(options)
        return
    begin = time.perf_counter()
    settings = {key: getattr(options, key) for key in ("level", "peer_version", "cap_gb")}
    results: dict[str, Any] = settings | {"results": {}}
    for dtype in options.dtype:
        for batch in options.batch:
            setting = Setting(
                options.level, dtype, options.device, batch, cap_gb=options.cap_gb, **options.sizes
            )
            limit_gpu_memory(options.cap_gb)
            result = run(setting, options)
            results["results"][f"{dtype}-batch{batch}"] = result
            results["seconds"] = round(time.perf_counter() - begin)
            if not options.no_write:
                write(result, results, setting, options.results)


if __name__ == "__main__":
    main()
