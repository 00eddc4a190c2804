"""Steps of pre-training and fine-tuning against the same model written the plain way.

python benchmarks/training.py [--device cuda] [--dtype bf16] [--cap-gb 24] [--largest-batch]
                              [--batch 1 2 4] [--n 6000 50000 148569] [--smoke] [--no-write]

The plain peer has the same weights, nystrom-attention's layers, padded batches, decodes every row,
and multiplies the error by the mask. Both run in one process, in turns, after loss and gradient
were compared where they must agree. A step is forward, backward and AdamW. bf16 is autocast, with
fp32 weights. Peak memory is that of one step above parameters, optimizer and inputs, on the
CPU in a fresh process; beside ours stands what ``--dry-run`` predicts.

Floor, and what utilisation is of: the arithmetic that a step needs at the rate of a large matrix
product, which takes its turns too. Flop, with T tokens, C channels, d = H D:

    a layer      8 T M d + H (2 M² D + 29 M³) + 8 T d²     forward; the backward pass is twice that
    embedding    4 C d for each patch that is not masked   forward, and the weight's gradient
    decoder      6 C d for each masked patch
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from _common import (
    add_shared_options,
    free_memory_mib,
    limit_gpu_memory,
    origin,
    peak_memory_mib,
    time_interleaved,
    write_results,
)
from _training_peers import (
    DTYPES,
    PEERS,
    STAGES,
    Setting,
    errors,
    flop,
    make_inputs,
    make_step,
    prepare_step,
)

from gimp_fast.ops.linear import linear

# Of the norm of a gradient in fp32: rounding turns the signs of distances that are nearly zero.
TOLERANCE = 5e-3
MATMUL = "matrix product"


def check(setting: Setting) -> dict[str, dict[str, float]]:
    """Peers that do not agree are not timed."""
    found = {stage: errors(setting, stage) for stage in STAGES}
    for stage, parts in found.items():
        listed = ", ".join(f"{part} {value:.1e}" for part, value in parts.items())
        print(f"  {stage:<10} relative differences: {listed}", flush=True)
        if not max(parts.values()) <= TOLERANCE:
            raise SystemExit(f"{stage}: the peers differ by {listed}; nothing was timed")
    return found


def peak_or_reason(
    name: str, setting: Setting, stage: str, lengths: list[int], max_plain: int
) -> float | str:
    """Peak memory in MiB, or why the peer does not run."""
    if name == "plain" and setting.device == "cpu":
        tokens = len(lengths) * max(lengths)
        if tokens > max_plain:
            return f"a step takes minutes; --max-plain is {max_plain}"
        # As many (B, H, N, M) tensors as it was seen to hold; a CPU's memory is everybody's.
        scores = (8 * setting.layers + 1) * setting.heads * tokens * setting.landmarks
        needed, free = 4 * scores / 2**30, free_memory_mib(setting.device) / 1024
        if needed > 0.9 * free:
            return f"needs about {needed:.1f} GiB, {free:.1f} GiB are free"
    try:
        return peak_memory_mib(prepare_step, name, setting, stage, lengths, device=setting.device)
    except RuntimeError as error:
        return str(error).splitlines()[0]


def predicted_mib(setting: Setting, stage: str, lengths: list[int]) -> float:
    """What ``gimp-fast train --dry-run`` says of the step of this package."""
    from gimp_fast.training.config import TrainConfig
    from gimp_fast.training.memory import MemoryPredictor

    config = TrainConfig(modalities="slide", precision=setting.dtype)
    predictor = MemoryPredictor(config, setting.config(), stage, setting.device)
    found = predictor(len(lengths), lengths)
    return (found.step + found.gradients) / 2**20


def measure(
    setting: Setting, stage: str, lengths: list[int], options: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Records of the peers that ran, and of those that did not."""
    where = {"mode": stage, "n": sum(lengths), "batch": len(lengths), "lengths": lengths}
    peaks = {
        name: peak_or_reason(name, setting, stage, lengths, options.max_plain)
        for name in options.peers
    }
    skipped = [
        where | {"peer": name, "reason": peak}
        for name, peak in peaks.items()
        if isinstance(peak, str)
    ]
    fit = [name for name, peak in peaks.items() if not isinstance(peak, str)]
    # Peers that together fill a GPU would take each other's cached blocks in their turns.
    groups = [[name] for name in fit] if setting.device == "cuda" else [fit] if fit else []
    rows = []
    for group in groups:
        timed, rate = time_steps(group, setting, stage, lengths, options)
        for name, row in timed.items():
            seconds = row["median_ms"] / 1e3
            work = flop(setting, stage, lengths)
            rows.append(
                where
                | {"peer": name, "peak_mib": peaks[name]}
                | row
                | {
                    "steps_per_s": 1 / seconds,
                    "samples_per_s": len(lengths) / seconds,
                    "floor_ms": 1e3 * work / rate,
                    "utilisation": work / rate / seconds,
                    "matmul_tflops": rate / 1e12,
                }
            )
    for row in rows:
        if row["peer"] == "gimp_fast":
            row["predicted_mib"] = predicted_mib(setting, stage, lengths)
    return rows, skipped


def time_steps(
    names: list[str],
    setting: Setting,
    stage: str,
    lengths: list[int],
    options: argparse.Namespace,
) -> tuple[dict[str, dict[str, float]], float]:
    """Times of the peers that take turns, and flop a second of the matrix product."""
    inputs = make_inputs(setting, stage, lengths)
    size = options.matmul
    a, b = torch.randn(2, size, size, device=setting.device, dtype=DTYPES[setting.dtype])
    # By the faster of torch's libraries: MKL leaves half of some processors idle.
    calls: dict[str, Any] = {MATMUL: lambda: linear(a, b)}
    for name in names:
        calls[name] = make_step(name, setting, stage, inputs)
    calls[MATMUL]()
    if setting.device == "cuda":
        for call in calls.values():
            call()
    timed = time_interleaved(
        calls, device=setting.device, repeats=options.repeats, warmup=0, budget_s=options.budget
    )
    return timed, 2 * size**3 / (timed.pop(MATMUL)["median_ms"] / 1e3)


def largest_batch(name: str, setting: Setting, length: int, max_plain: int) -> int:
    """Largest pre-training batch of which a step runs."""

    def runs(batch: int) -> bool:
        found = peak_or_reason(name, setting, "pretrain", [length] * batch, max_plain)
        print(f"    {name}, batch {batch}: {found}", flush=True)
        return not isinstance(found, str)

    fits, too_large = 0, 1
    while runs(too_large):
        fits, too_large = too_large, 2 * too_large
    while too_large - fits > max(1, fits // 32):
        middle = (fits + too_large) // 2
        fits, too_large = (middle, too_large) if runs(middle) else (fits, middle)
    return fits


def print_rows(rows: list[dict[str, Any]], skipped: list[dict[str, Any]]) -> None:
    for row in rows:
        print(
            f"  {row['mode']:<9} {row['batch']:>3} bags {row['n']:>8,} patches  {row['peer']:<10}"
            f"{row['median_ms']:9.0f} ms  {row['samples_per_s']:7.2f} samples/s"
            f"  {row['utilisation']:4.0%} of {row['matmul_tflops']:.2f} Tflop/s"
            f"  peak {row['peak_mib']:7.0f} MiB"
            + (f" (predicted {row['predicted_mib']:.0f})" if "predicted_mib" in row else ""),
            flush=True,
        )
    for row in skipped:
        print(f"  {row['mode']:<9} {row['n']:>8,} patches  {row['peer']:<10} {row['reason']}")


def run(
    setting: Setting, options: argparse.Namespace, write: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """All cases; what is known is written after each, as they take minutes."""
    print(f"\n{setting.dtype} on {setting.device}", flush=True)
    result: dict[str, Any] = {"differences": check(setting), "rows": [], "skipped": []}
    cases = [("pretrain", [options.window] * batch) for batch in options.batch]
    cases += [("finetune", [n]) for n in options.n] + [("finetune", options.mixed)]
    for stage, lengths in cases:
        rows, skipped = measure(setting, stage, lengths, options)
        print_rows(rows, skipped)
        result["rows"] += rows
        result["skipped"] += skipped
        write(result)
    if options.largest_batch:
        result["largest_batch"] = {
            name: largest_batch(name, setting, options.window, options.max_plain)
            for name in options.peers
        }
        print(f"  largest batches: {result['largest_batch']}")
        write(result)
    return result


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", nargs="+", choices=["fp32", "bf16"], help="fp32 bf16, or fp32")
    parser.add_argument("--batch", type=int, nargs="+", help="pre-training; 1 2 4, or 16 64")
    parser.add_argument("--window", type=int, default=6000, help="patches of a window")
    parser.add_argument("--n", type=int, nargs="+", default=[6000, 50000, 148569])
    parser.add_argument("--mixed", type=int, nargs="+", default=[485, 1000, 6000, 15000])
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument(
        "--max-plain", type=int, default=60000, help="patches of the plain peer's batch, on a CPU"
    )
    parser.add_argument("--repeats", type=int, default=9, help="at most, for each peer")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of turns, about")
    parser.add_argument("--checkpoint-layers", action="store_true", help="of this package")
    parser.add_argument("--cap-gb", type=float, help="let torch have this much of the GPU")
    parser.add_argument("--largest-batch", action="store_true", help="search it, on a GPU")
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
    if not cuda and (options.cap_gb is not None or options.largest_batch):
        parser.error("--cap-gb and --largest-batch need --device cuda")
    options.dtype = options.dtype or (["fp32", "bf16"] if cuda else ["fp32"])
    options.batch = options.batch or ([16, 64] if cuda else [1, 2, 4])
    options.matmul, options.sizes = 8192 if cuda else 2048, {}
    if options.smoke:
        options.batch, options.window, options.n, options.mixed = [2], 60, [90], [5, 40, 70]
        options.repeats, options.matmul = 2, 128
        options.sizes = {"feature_dim": 24, "dim": 16, "heads": 2, "landmarks": 16}
    return options


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    begin = time.perf_counter()
    results: dict[str, Any] = {"peer_version": options.peer_version, "cap_gb": options.cap_gb}
    results |= {"window": options.window, "results": {}}
    for dtype in options.dtype:
        setting = Setting(
            dtype,
            options.device,
            checkpoint_layers=options.checkpoint_layers,
            cap_gb=options.cap_gb,
            **options.sizes,
        )
        limit_gpu_memory(options.cap_gb)

        def write(result: dict[str, Any], setting: Setting = setting) -> None:
            results["results"][setting.dtype] = result | {"setting": vars(setting)}
            results["seconds"] = round(time.perf_counter() - begin)
            if not options.no_write:
                options.path = write_results("training", options.device, results, options.results)

        result = run(setting, options, write)
        if options.no_write:
            continue
        # Not above: every process whose memory is measured imports this script.
        from _plots import plot_scaling

        path = options.path
        picture = path.with_name(f"{path.stem}-{dtype}.png")
        title = f"Training steps, {dtype}, d = {setting.dim}, {setting.layers} layers\n"
        title += origin(options.device)["device"]
        plot_scaling(result["rows"], picture, title, "patches of a batch")
        print(f"\nwrote {path} and {picture}")


if __name__ == "__main__":
    main()
