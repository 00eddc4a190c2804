"""A fine-tuning step of the patch aggregator, with the rows that it needs and with whole layers.

python benchmarks/needed_rows.py [--n 6000 50000] [--rows cls masked] [--smoke] [--no-write]

Both compute the same numbers, which is checked first. Two layers of width 512, 8 heads, 256
landmarks, patches of 1,024 channels, fp32, one bag; forward and backward, with every gradient.
``cls``: the CLS token, as fine-tuning and prediction need; ``masked``: the CLS token and half of
the patches, as pre-training needs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from _common import add_shared_options, time_interleaved, write_results
from torch import Tensor

from gimp_fast.nn import PatchAggregator
from gimp_fast.ops.patch_embedding import take_rows

# Gradients of queries are small differences; in fp64 both are equal to 1e-12, which is a test.
TOLERANCE = 5e-3
WIDTHS = {"feature_dim": 1024, "dim": 512, "heads": 8, "num_landmarks": 256}
SMOKE = {"feature_dim": 32, "dim": 16, "heads": 2, "num_landmarks": 8}


class WholeLayers(PatchAggregator):
    """The aggregator as it would be without rows: every layer computes all tokens."""

    def _layers(self, hidden, bags, rows):
        hidden = super()._layers(hidden, bags, None)
        return hidden if rows is None else take_rows(hidden.flatten(0, 1), rows.index)


def make_step(module: PatchAggregator, patches: Tensor, masked: Tensor | None) -> Callable[[], Any]:
    keep = "none" if masked is None else "masked"

    def step() -> list[Tensor]:
        module.zero_grad()
        cls, tokens = module(patches, masked=masked, keep=keep)
        loss = cls.square().sum() if tokens is None else cls.square().sum() + tokens.sin().sum()
        loss.backward()
        return [cls.detach(), *(p.grad for p in module.parameters() if p.grad is not None)]

    return step


def error(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest relative difference of the outputs and gradients."""
    parts = zip(found, expected, strict=True)
    return max(((a - b).norm() / b.norm().clamp(min=1e-20)).item() for a, b in parts)


def measure(n: int, kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """Times of both, and how far their results are apart."""
    widths = SMOKE if options.smoke else WIDTHS
    torch.manual_seed(0)
    needed, whole = PatchAggregator(**widths), WholeLayers(**widths)
    whole.load_state_dict(needed.state_dict())
    patches = torch.randn(1, n, widths["feature_dim"], device=options.device)
    masked = None if kind == "cls" else (torch.arange(n, device=options.device) % 2 == 0)[None]
    steps = {
        "needed rows": make_step(needed.to(options.device), patches, masked),
        "whole layers": make_step(whole.to(options.device), patches, masked),
    }
    apart = error(*(step() for step in steps.values()))
    if not apart <= TOLERANCE:
        raise SystemExit(
            f"{n} patches, {kind}: the results are {apart:.1e} apart; nothing was timed"
        )
    rows = time_interleaved(steps, device=options.device, repeats=options.repeats, budget_s=60)
    ratio = rows["whole layers"]["median_ms"] / rows["needed rows"]["median_ms"]
    print(
        f"  {n:>7} {kind:<7} whole {rows['whole layers']['median_ms']:>9,.1f} ms, needed "
        f"{rows['needed rows']['median_ms']:>9,.1f} ms, {ratio:.2f}×, apart {apart:.0e}",
        flush=True,
    )
    return {"n": n, "rows": kind, "error": apart, "ratio": ratio, "times": rows}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, nargs="+", default=[6000, 50000], help="patches of a bag")
    parser.add_argument("--rows", nargs="+", choices=["cls", "masked"], default=["cls", "masked"])
    parser.add_argument("--repeats", type=int, default=7, help="at most, for each")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it runs")
    add_shared_options(parser)
    options = parser.parse_args(argv)
    if options.smoke:
        options.n, options.repeats = [30], 2
    results = [measure(n, kind, options) for n in options.n for kind in options.rows]
    if not options.no_write:
        path = write_results("needed_rows", options.device, {"results": results}, options.results)
        print(f"\nwrote {path}")


if __name__ == "__main__":
    main()
