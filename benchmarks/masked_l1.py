"""Masked L1, forward and backward, beside the usual ways to write it.

python benchmarks/masked_l1.py [--device cuda] [--repeats 15] [--shape 8 6000 1024]

Floor: the bytes that must move, at the rate of a copy of the prediction, which takes turns with the
peers. The counted rows of both tensors are read, two bits for each of their elements are written
and read again, and the gradient of all rows is written.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from _common import add_shared_options, peak_memory_mib, time_interleaved, write_results
from torch import Tensor

from gimp_fast.ops import available_backends, masked_l1_loss

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MASK_RATIO = 0.5
COPY = "copy"


def indexed(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    return F.l1_loss(prediction[mask], target[mask])


def multiplied(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    count = mask.sum() * prediction.shape[-1]
    return ((prediction - target).abs() * mask.unsqueeze(-1)).sum() / count


def fused(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    return masked_l1_loss(prediction, target, mask)


def composed(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    return masked_l1_loss(prediction, target, mask, backend="torch")


PEERS = {
    "gimp_fast": fused,
    "gimp_fast, backend=torch": composed,
    "F.l1_loss(prediction[mask], target[mask])": indexed,
    "((x - y).abs() * mask).sum() / count": multiplied,
}


def make_inputs(shape: list[int], dtype: str, device: str) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator(device).manual_seed(0)
    prediction, target = (
        torch.empty(shape, dtype=DTYPES[dtype], device=device).normal_(generator=generator)
        for _ in range(2)
    )
    mask = torch.rand(shape[:-1], generator=generator, device=device) < MASK_RATIO
    return prediction.requires_grad_(), target, mask


def step(peer: Callable[..., Tensor], inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    peer(*inputs).backward()
    inputs[0].grad = None


def prepare_step(name: str, shape: list[int], dtype: str, device: str) -> Callable[[], None]:
    step(PEERS[name], make_inputs([1, 8, 8], dtype, device))  # loads libraries, starts threads
    inputs = make_inputs(shape, dtype, device)
    return lambda: step(PEERS[name], inputs)


def least_bytes(prediction: Tensor, mask: Tensor) -> int:
    """Bytes that must move, as the module's docstring counts them."""
    counted = int(mask.sum()) * prediction.shape[-1]
    gradient = prediction.numel() * prediction.element_size()
    return 2 * counted * prediction.element_size() + 2 * counted // 4 + gradient


def assert_correct(dtype: str, device: str) -> None:
    """Compare value and gradient of every peer with fp64: none is timed if one is wrong."""
    prediction, target, mask = make_inputs([2, 301, 1024], dtype, device)
    wide = prediction.detach().double().requires_grad_()
    expected = indexed(wide, target.double(), mask)
    expected.backward()
    rtol = 2e-2 if dtype == "bfloat16" else 1e-5
    for peer in PEERS.values():
        loss = peer(prediction, target, mask)
        loss.backward()
        torch.testing.assert_close(loss.double(), expected, rtol=rtol, atol=0)
        torch.testing.assert_close(prediction.grad.double(), wide.grad, rtol=rtol, atol=0)
        prediction.grad = None


def measure(dtype: str, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    assert_correct(dtype, arguments.device)
    inputs = make_inputs(arguments.shape, dtype, arguments.device)
    source = inputs[0].detach()
    needed, moved = least_bytes(source, inputs[2]), 2 * source.numel() * source.element_size()
    calls = {COPY: partial(torch.empty_like(source).copy_, source)}
    calls |= {name: partial(step, peer, inputs) for name, peer in PEERS.items()}
    rows = time_interleaved(calls, device=arguments.device, repeats=arguments.repeats)
    rate = moved / rows.pop(COPY)["median_ms"]  # bytes a millisecond
    del inputs, calls, source
    for name, row in rows.items():
        row["floor_ms"] = needed / rate
        row["copy_gb_per_s"] = rate / 1e6
        row["peak_mib"] = peak_memory_mib(
            prepare_step, name, arguments.shape, dtype, arguments.device, device=arguments.device
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--shape", type=int, nargs=3, default=[8, 6000, 1024], metavar=("B", "N", "C")
    )
    parser.add_argument("--repeats", type=int, default=15)
    add_shared_options(parser)
    arguments = parser.parse_args()
    needed = "cuda" if arguments.device == "cuda" else "native"
    if (status := available_backends()[needed]) != "available":
        parser.error(f"the {needed} backend cannot run: {status}")

    results = {dtype: measure(dtype, arguments) for dtype in DTYPES}
    for dtype, rows in results.items():
        print(f"\n{tuple(arguments.shape)} {dtype}, {MASK_RATIO:.0%} counted, forward + backward")
        for name, row in rows.items():
            part = row["floor_ms"] / row["median_ms"]
            print(
                f"  {name:<42} {row['median_ms']:9.2f} ms  {part:4.0%}"
                f" of {row['copy_gb_per_s']:,.0f} GB/s  peak {row['peak_mib']:7.1f} MiB"
            )
    if not arguments.no_write:
        settings = {
            "shape": arguments.shape,
            "mask_ratio": MASK_RATIO,
            "repeats": arguments.repeats,
        }
        results = settings | {"results": results}
        path = write_results("masked_l1", arguments.device, results, arguments.results)
        print(f"\nwrote {path}")


if __name__ == "__main__":
    main()
