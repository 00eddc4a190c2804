"""The training step's reconstruction loss, forward and backward, fused and composed by torch.

python benchmarks/masked_reconstruction.py [--device cuda] [--rows 3000 48000]
                                           [--threads 1] [--processor-time]

Floor: the three matrix products of the step alone (decoder, gradient of the tokens, gradient of the
weight), in the same chunks, which take turns with the peers. All peers are given the masked rows
only. The target has twice as many rows.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import torch
import torch.nn.functional as F
from _common import add_shared_options, peak_memory_mib, time_interleaved, write_results
from torch import Tensor

from gimp_fast.ops import available_backends, masked_reconstruction_loss
from gimp_fast.ops.products import chunks, linear, weight_grad

# Of the products, and of the target.
DTYPES = [("float32", "float32"), ("float32", "float16"), ("bfloat16", "float16")]
# Relative to the norm of a gradient: rounding turns the signs of distances close to zero.
TOLERANCES = {"float32": 5e-3, "bfloat16": 1e-1}
CHUNK_ROWS = 4096
FLOOR = "its three products alone"
Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def composed(*inputs: Tensor) -> Tensor:
    with patch.dict(os.environ, GIMP_FAST_BACKEND="torch"):
        return masked_reconstruction_loss(*inputs)


def plain(tokens: Tensor, weight: Tensor, bias: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    decoded = F.linear(tokens, weight, bias)
    return F.l1_loss(decoded.to(torch.promote_types(decoded.dtype, torch.float32)), target[mask])


PEERS = {
    "gimp_fast": masked_reconstruction_loss,
    "gimp_fast, GIMP_FAST_BACKEND=torch": composed,
    "F.l1_loss(F.linear(tokens), target[mask])": plain,
}


def make_inputs(rows: int, dtypes: tuple[str, str], options: argparse.Namespace) -> Inputs:
    generator = torch.Generator(options.device).manual_seed(0)
    dtype, target_dtype = (getattr(torch, name) for name in dtypes)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=options.device)

    tokens, bias = normal(rows, options.dim), normal(options.channels)
    weight = normal(options.channels, options.dim) / options.dim**0.5
    target = normal(2 * rows, options.channels).to(target_dtype)
    masked = torch.randperm(2 * rows, generator=generator, device=options.device)[:rows]
    mask = torch.zeros(2 * rows, dtype=torch.bool, device=options.device)
    mask[masked] = True
    leaves = [x.to(dtype).requires_grad_() for x in (tokens, weight, bias)]
    return (*leaves, target, mask)


def step(peer: Callable[..., Tensor], inputs: Inputs) -> list[Tensor]:
    loss = peer(*inputs)
    return [loss, *torch.autograd.grad(loss, inputs[:3])]


@torch.no_grad()
def products(inputs: Inputs) -> None:
    tokens, weight = (x.detach() for x in inputs[:2])
    for rows in chunks(len(tokens), CHUNK_ROWS):
        decoded = linear(tokens[rows], weight)
        linear(decoded, weight.t())
        weight_grad(decoded, tokens[rows])


def prepare_step(
    name: str, rows: int, dtypes: tuple[str, str], options: argparse.Namespace
) -> Callable[[], object]:
    step(PEERS[name], make_inputs(8, dtypes, options))  # loads libraries, starts threads
    return partial(step, PEERS[name], make_inputs(rows, dtypes, options))


def assert_correct(dtypes: tuple[str, str], options: argparse.Namespace) -> None:
    """Compare loss and gradients of every peer with fp64: none is timed if one is wrong."""
    inputs = make_inputs(301, dtypes, options)
    wide = [x.detach().double().requires_grad_() for x in inputs[:3]]
    expected = step(plain, (*wide, inputs[3].double(), inputs[4]))
    for name, peer in PEERS.items():
        for found, wanted in zip(step(peer, inputs), expected, strict=True):
            error = (found.double() - wanted).norm() / wanted.norm()
            assert error <= TOLERANCES[dtypes[0]], f"{name}: an error of {error:.1e}"


def measure(
    rows: int, dtypes: tuple[str, str], options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    assert_correct(dtypes, options)
    inputs = make_inputs(rows, dtypes, options)
    calls: dict[str, Callable[[], object]] = {FLOOR: partial(products, inputs)}
    calls |= {name: partial(step, peer, inputs) for name, peer in PEERS.items()}
    clock = time.process_time if options.processor_time else time.perf_counter
    timed = time_interleaved(calls, device=options.device, repeats=options.repeats, clock=clock)
    del inputs, calls
    for name in PEERS:
        timed[name]["peak_mib"] = peak_memory_mib(
            prepare_step, name, rows, dtypes, options, device=options.device
        )
    return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[3000, 48000], help="masked rows")
    parser.add_argument("--channels", type=int, default=1024)
    parser.add_argument("--dim", type=int, default=512, help="width of the tokens")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument(
        "--processor-time", action="store_true", help="for one thread on a busy machine"
    )
    add_shared_options(parser)
    options = parser.parse_args()
    needed = "cuda" if options.device == "cuda" else "native"
    if (status := available_backends()[needed]) != "available":
        parser.error(f"the {needed} backend cannot run: {status}")
    torch.set_num_threads(options.threads)

    results = {}
    for rows in options.rows:
        for dtypes in DTYPES:
            case = f"{rows} rows, {dtypes[0]}, target {dtypes[1]}"
            results[case] = measure(rows, dtypes, options)
            print(f"\n{case}, C={options.channels}, d={options.dim}, forward + backward")
            for name, row in results[case].items():
                peak = f"  peak {row['peak_mib']:7.1f} MiB" if "peak_mib" in row else ""
                print(
                    f"  {name:<42} {row['median_ms']:9.2f} ms, fastest {row['min_ms']:9.2f}{peak}"
                )
    if not options.no_write:
        names = ("channels", "dim", "repeats", "processor_time")
        settings = {name: getattr(options, name) for name in names}
        found = settings | {"results": results}
        path = write_results("masked_reconstruction", options.device, found, options.results)
        print(f"\nwrote {path}")


if __name__ == "__main__":
    main()
