"""Other configurations of the attention kernels, each timed beside the one of the table.

python benchmarks/_gpu_tuning.py --device cuda [--results FOLDER] [--smoke]

One number of one configuration is changed at a time: a tile twice or half as large, twice or half
the warps, a stage more or less. The pass that has the kernel runs with both tables in turns, after
their results were compared. The table in ``kernels/launch.py`` is not edited: a person decides.

Without ``--device cuda`` launches are recorded and not made, to see that the script runs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

import torch
from _common import add_shared_options, time_interleaved, write_results
from torch import Tensor
from triton.errors import TritonError

from gimp_fast.kernels import launch as launching
from gimp_fast.kernels.launch import Architecture, Config
from gimp_fast.kernels.nystrom_attention import nystrom_attention_bwd, nystrom_attention_fwd

BATCH, TOKENS, HEADS, HEAD_DIM, LANDMARKS, ITERATIONS = 8, 6000, 8, 64, 256, 6
# Of the norm: sums in another order, rounded to bf16.
TOLERANCE = 2e-2
PRODUCT = "product"


def neighbours(config: Config) -> Iterator[Config]:
    """Configurations that differ in one number."""
    for field in ("tokens", "landmarks", "num_warps"):
        value = getattr(config, field)
        smallest = 4 if field == "num_warps" else 16
        for changed in (2 * value, value // 2):
            if changed >= smallest and not (field == "num_warps" and changed > 16):
                yield replace(config, **{field: changed})
    for stages in (config.num_stages - 1, config.num_stages + 1):
        if 1 <= stages <= 5:
            yield replace(config, num_stages=stages)


def families(arch: Architecture) -> dict[str, Config]:
    """The configurations of bf16 and this head dim; those of the longest kernels first."""
    product = arch.half_product or arch.product
    found = {PRODUCT: product} | {name: pair[0] for name, pair in arch.half.items()}
    return dict(sorted(found.items(), key=lambda item: "bwd" not in item[0] and item[0] != PRODUCT))


def changed(arch: Architecture, family: str, config: Config) -> Architecture:
    if family == PRODUCT:
        return replace(arch, half_product=config)
    return replace(arch, half=arch.half | {family: (config, *arch.half[family][1:])})


def make_calls(device: str) -> Callable[[Architecture], tuple[Callable[[], Any], Callable]]:
    """A function that gives forward and backward by an architecture, on the same input."""
    qkv = torch.empty(
        BATCH, TOKENS, 3, HEADS, HEAD_DIM, dtype=torch.bfloat16, device=device
    ).normal_()
    q, k, v = (x.transpose(1, 2) for x in qkv.unbind(2))
    scale = HEAD_DIM**-0.5

    def of(arch: Architecture) -> tuple[Callable[[], Any], Callable[[], Any]]:
        def forward() -> tuple[Tensor, ...]:
            return nystrom_attention_fwd(q, k, v, None, LANDMARKS, ITERATIONS, scale, arch)

        out, *saved = forward()

        def backward() -> tuple[Tensor, ...]:
            return nystrom_attention_bwd(out, q, k, v, None, *saved, ITERATIONS, scale, arch)

        return forward, backward

    return of


def difference(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """The largest relative difference, of the norms."""
    return max(
        ((a.float() - b.float()).norm() / b.float().norm()).item()
        for a, b in zip(found, expected, strict=True)
    )


def compare(
    calls: Callable[[Architecture], tuple[Callable, Callable]],
    arch: Architecture,
    other: Architecture,
    device: str,
) -> dict[str, Any]:
    """Times of both passes by both tables, and how far the results are apart."""
    ours, theirs = calls(arch), calls(other)
    row: dict[str, Any] = {}
    for name, now, then in zip(("forward", "backward"), ours, theirs, strict=True):
        expected, found = now(), then()
        if device == "cuda":
            outputs = slice(0, 1) if name == "forward" else slice(None)
            row[f"{name}_difference"] = difference(found[outputs], expected[outputs])
        timed = time_interleaved(
            {"table": now, "other": then}, device=device, repeats=15, budget_s=1.0
        )
        row |= {f"{name}_{key}_ms": value["median_ms"] for key, value in timed.items()}
    wrong = [row[key] for key in row if key.endswith("_difference") and not row[key] <= TOLERANCE]
    return row | ({"reason": f"results differ by {max(wrong):.1e}"} if wrong else {})


def search(
    arch: Architecture, device: str, most: int | None, write: Callable[[list[dict[str, Any]]], None]
) -> None:
    """Compare all neighbours, or the first few; one that does not run is kept with the reason."""
    calls = make_calls("meta" if device == "cpu" else device)
    rows: list[dict[str, Any]] = []
    for family, config in families(arch).items():
        for other in islice(neighbours(config), most):
            row = {"family": family, "table": asdict(config), "other": asdict(other)}
            begin = time.perf_counter()
            try:
                row |= compare(calls, arch, changed(arch, family, other), device)
            except (TritonError, RuntimeError) as error:
                row["reason"] = str(error).splitlines()[0]
            row["seconds"] = round(time.perf_counter() - begin, 1)
            rows.append(row)
            write(rows)
            print(describe(row), flush=True)


def best(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The fastest other configuration of each family, and its time ÷ that of the table."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if "reason" in row:
            continue
        other, table = (
            row[f"forward_{key}_ms"] + row[f"backward_{key}_ms"] for key in ("other", "table")
        )
        ratio = other / table
        if ratio < found.get(row["family"], {"ratio": float("inf")})["ratio"]:
            found[row["family"]] = {"other": row["other"], "ratio": ratio}
    return found


def describe(row: dict[str, Any]) -> str:
    config = Config(**row["other"])
    if "reason" in row:
        return f"{row['family']:<12} {config}: {row['reason']}"
    times = ", ".join(
        f"{part} {row[f'{part}_other_ms']:.3f} ms, table {row[f'{part}_table_ms']:.3f}"
        for part in ("forward", "backward")
    )
    return f"{row['family']:<12} {config}: {times}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_shared_options(parser)
    parser.add_argument("--smoke", action="store_true", help="one configuration of each family")
    options = parser.parse_args(argv)
    cuda = options.device == "cuda"
    if cuda and not torch.cuda.is_available():
        parser.error("no CUDA GPU is visible to torch")

    def write(rows: list[dict[str, Any]]) -> None:
        if not options.no_write:
            results = {"best": best(rows), "rows": rows}
            write_results("tuning", options.device, results, options.results)

    arch = launching.architecture(torch.device("cuda")) if cuda else launching.ARCHITECTURES[90]
    with nullcontext() if cuda else launching.recording():
        search(arch, options.device, 1 if options.smoke else None, write)


if __name__ == "__main__":
    main()
