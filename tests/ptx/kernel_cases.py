"""Small inputs for every kernel of the package, with what to compare the results with.

python tests/ptx/kernel_cases.py bfloat16 [86]   ->  a JSON object a case, and one of kernels

The kernels are compiled for this GPU, sm_86 unless given, and executed by the emulator.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from builders.attention import (
    STAGES,
    clustered_projections,
    loss_weight,
    outputs_and_gradients,
    plain_composition,
    random_projections,
    split,
)
from builders.errors import assert_near, assert_no_worse, attention_sizes

from gimp_fast.ops import nystrom_attention
from gimp_fast.ops.nystrom_operators import differentiable_rows
from gimp_fast.ops.packing import Bags
from gimp_fast.ops.segment_means import segment_means
from gimp_fast.reference.nystrom_attention import nystrom_attention_reference

TOLERANCE = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}


def _compare(qkv: Tensor, dtype: torch.dtype, peer: Callable | None = None, **options) -> None:
    """The output and the gradients against fp64: near it, or about as near as a peer."""
    qkv = qkv.to(dtype).double()
    inputs = split(qkv)
    expected = outputs_and_gradients(nystrom_attention_reference, inputs, **options)
    sizes = attention_sizes(expected, inputs, loss_weight(inputs))
    found = outputs_and_gradients(nystrom_attention, split(qkv, dtype), backend="triton", **options)
    if peer is None:
        assert_near(found, expected, TOLERANCE[dtype], sizes)
        return
    of_peer = outputs_and_gradients(peer, split(qkv, dtype), **options)
    # In fp32 sm_86 adds the terms of all tiles one after the other. Torch adds sums of blocks,
    # which loses half as much.
    factor = 3 if dtype == torch.float32 else 2
    assert_no_worse(found, of_peer, expected, factor, sizes, STAGES)


def batch(n: int, h: int, d: int, m: int, b: int = 1, iterations: int = 6) -> Callable:
    """A case of bags of one length."""

    def run(dtype: torch.dtype) -> None:
        options = {"num_landmarks": m, "pinv_iterations": iterations}
        _compare(random_projections(b, n, h, d, gain=1.5), dtype, **options)

    return run


def packed(lengths: tuple[int, ...], d: int, m: int, iterations: int = 6) -> Callable:
    """A case of packed bags."""

    def run(dtype: torch.dtype) -> None:
        bounds = torch.tensor([0, *lengths]).cumsum(0).int()
        options = {"num_landmarks": m, "pinv_iterations": iterations, "cu_seqlens": bounds}
        _compare(random_projections(1, sum(lengths), 2, d, gain=1.5), dtype, **options)

    return run


def against_plain_composition(kind: str) -> Callable:
    """Errors near those of plain torch in the same dtype."""

    def run(dtype: torch.dtype) -> None:
        n, d, m = 250, 16, 36
        qkv = random_projections(1, n, 2, d)
        if kind == "clustered":
            qkv = clustered_projections(torch.arange(n) * 6 // n, 2, d, gain=3, noise=0.01)
        single = dtype == torch.float32
        peer = nystrom_attention_reference if single else plain_composition
        _compare(qkv, dtype, peer, num_landmarks=m)

    return run


def some_queries(lengths: tuple[int, ...], d: int, m: int) -> Callable:
    """Every third query of packed bags, with the landmarks of all."""

    def run(dtype: torch.dtype) -> None:
        bags = Bags.of_lengths(lengths, "cpu")
        index = torch.arange(0, bags.num_rows, 3)
        bag = torch.searchsorted(bags.cu_seqlens[1:], index, right=True)
        rows = Bags.of_lengths(torch.bincount(bag, minlength=len(bags)).tolist(), "cpu")
        qkv = random_projections(1, bags.num_rows, 2, d).to(dtype).double()
        exact, inputs = split(qkv), split(qkv, dtype)
        grad = loss_weight(exact)[:, :, index]
        options = {"num_landmarks": m, "cu_seqlens": bags.cu_seqlens}
        out = nystrom_attention_reference(*exact, **options)[:, :, index]
        expected = [out, *torch.autograd.grad(out, exact, grad)]
        q, k, v = inputs
        means = segment_means(q[0].transpose(0, 1).flatten(1), bags, m)
        marks = means.unflatten(-1, (-1, d)).transpose(1, 2)
        settings = (m, 6, d**-0.5, "triton")
        out, *_ = differentiable_rows(
            q[:, :, index], marks, k, v, rows.cu_seqlens, bags.cu_seqlens, *settings
        )
        found = [out, *torch.autograd.grad(out, inputs, grad.to(dtype))]
        sizes = attention_sizes(expected, exact, grad)
        assert_near(found, expected, TOLERANCE[dtype], sizes)

    return run


CASES = {
    "N37-H2-D16-M20": batch(37, 2, 16, 20),
    "B2-N111-D64-M37": batch(111, 2, 64, 37, b=2, iterations=3),
    # One head is a case of its own: Triton makes a constant of an argument that is 1.
    "exact-N13-D16-M16": batch(13, 1, 16, 16),
    "padded-head-N50-D13-M17": batch(50, 1, 13, 17, iterations=1),
    "packed-D16-M20": packed((37, 5, 0, 20, 1, 70), 16, 20),
    "packed-chunks-D64-M37": packed((530, 33), 64, 37, iterations=2),
    "random-against-plain": against_plain_composition("random"),
    "clustered-against-plain": against_plain_composition("clustered"),
    "some-queries-D16-M20": some_queries((37, 5, 0, 20, 1, 70), 16, 20),
}


def main(argv: list[str]) -> None:
    from ptx.launcher import install, kernel_names

    torch.set_num_threads(1)
    emulator = install(int(argv[1]) if argv[1:] else 86)
    for name, run in CASES.items():
        try:
            run(getattr(torch, argv[0]))
        except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
            fault = f"{type(error).__name__}: {error}"
        else:
            fault = None
        print(json.dumps({"case": name, "fault": fault}), flush=True)
    print(json.dumps({"not executed": sorted(kernel_names() - set(emulator.executed))}))


if __name__ == "__main__":
    main(sys.argv[1:])
