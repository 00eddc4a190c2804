"""Small inputs for every kernel of the package, with what to compare the results with.

python tests/ptx/kernel_cases.py bfloat16 [CASE …]  ->  a JSON object a case, and one of kernels

The kernels are compiled for sm_86 and executed by the emulator.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d

if __name__ == "__main__":
    TESTS = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(TESTS), str(TESTS / "kernels")]

from builders.attention import (
    STAGES,
    clustered_projections,
    loss_weight,
    outputs_and_gradients,
    plain_composition,
    random_projections,
    split,
)
from builders.errors import assert_no_worse, attention_sizes

from gimp_fast.ops import nystrom_attention
from gimp_fast.ops.nystrom_operators import differentiable_rows
from gimp_fast.ops.packing import Bags, Rows
from gimp_fast.ops.segment_means import segment_means
from gimp_fast.ops.token_conv import token_conv
from gimp_fast.ops.token_conv_rows import token_conv_rows
from gimp_fast.reference.nystrom_attention import nystrom_attention_reference

# What a case is run with: the dtype, and the emulator.
Case = Callable[[torch.dtype, Any], None]
# The GPU that is emulated, and the one whose kernels and tiles a case takes.
CAPABILITIES = (86, 90)
# A bag of two chunks, bags of N ≤ M and of N > M, one without tokens, one of a single token.
LENGTHS = (530, 5, 0, 24, 1, 70)
SHORT_LENGTHS = (37, 5, 0, 24, 1, 70)


def plain(
    q: Tensor, k: Tensor, v: Tensor, *, num_landmarks: int, cu_seqlens: Tensor | None = None
) -> Tensor:
    """What one writes in torch, for each bag: softmax attention if N ≤ M."""
    if cu_seqlens is not None:
        bags = [[x[:, :, a:b] for x in (q, k, v)] for a, b in pairwise(cu_seqlens.tolist())]
        return torch.cat([plain(*bag, num_landmarks=num_landmarks) for bag in bags], 2)
    if q.shape[2] > num_landmarks:
        return plain_composition(q, k, v, num_landmarks=num_landmarks)
    return (q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1) @ v


def compare(
    function: Callable[..., Tensor], qkv: Tensor, dtype: torch.dtype, options: dict[str, Any],
    index: Tensor | slice = slice(None),
) -> list[Tensor]:  # fmt: skip
    """Output and gradients of a function, for the queries of an index, which are held to fp64.

    Their errors are at most twice those of plain torch in the same dtype.
    """
    qkv = qkv.to(dtype).double()
    exact = split(qkv)
    grad = loss_weight(exact)[:, :, index]

    def rows_of(other: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *inputs: other(*inputs, **options)[:, :, index]

    expected = outputs_and_gradients(rows_of(nystrom_attention_reference), exact, grad)
    peer = outputs_and_gradients(rows_of(plain), split(qkv, dtype), grad)
    found = outputs_and_gradients(function, split(qkv, dtype), grad)
    sizes = attention_sizes(expected, exact, grad)
    assert_no_worse(found, peer, expected, 2, sizes, STAGES)
    return found


def attention(qkv: Tensor, m: int, lengths: Sequence[int] | None = None) -> Case:
    """Bags of one length, or packed ones of these lengths."""

    def run(dtype: torch.dtype, emulator: Any) -> None:
        options: dict[str, Any] = {"num_landmarks": m}
        if lengths:
            options["cu_seqlens"] = torch.tensor([0, *lengths]).cumsum(0).int()
        compare(lambda *x: nystrom_attention(*x, backend="triton", **options), qkv, dtype, options)

    return run


def some_queries(d: int, m: int) -> Case:
    """Every third query of packed bags, with the landmarks of all."""
    bags = Bags.of_lengths(SHORT_LENGTHS, "cpu")
    index = torch.arange(0, bags.num_rows, 3)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        means = segment_means(q[0].transpose(0, 1).flatten(1), bags, m)
        marks = means.unflatten(-1, (-1, d)).transpose(1, 2)
        settings = (m, 6, d**-0.5, "triton")
        bounds = _rows(bags, index).bags.cu_seqlens
        return differentiable_rows(q[:, :, index], marks, k, v, bounds, bags.cu_seqlens, *settings)[
            0
        ]

    def run(dtype: torch.dtype, emulator: Any) -> None:
        options = {"num_landmarks": m, "cu_seqlens": bags.cu_seqlens}
        compare(attend, random_projections(1, bags.num_rows, 2, d), dtype, options, index)

    return run


def _rows(bags: Bags, index: Tensor) -> Rows:
    bag = torch.searchsorted(bags.cu_seqlens[1:], index, right=True)
    counts = torch.bincount(bag, minlength=len(bags)).tolist()
    return Rows(index, Bags.of_lengths(counts, "cpu"))


def meetings(qkv: Tensor, m: int) -> Case:
    """Teams of blocks share a pseudo-inverse: the same bits as without, in any order of blocks."""

    def run(dtype: torch.dtype, emulator: Any) -> None:
        from ptx.launcher import TURNS

        from gimp_fast.kernels import launch

        # Tiles of GPUs that the table does not know: several of them cover a small matrix.
        arch = replace(launch.UNKNOWN, product=launch.Config(32, 32, 4, 1))
        options = {"num_landmarks": m}

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return nystrom_attention(q, k, v, backend="triton", **options)

        before = emulator.meetings
        with emulator.device(arch, multiprocessors=1):
            alone = compare(attend, qkv, dtype, options)
        assert emulator.meetings == before
        for turns in TURNS:
            before = emulator.meetings
            with emulator.device(arch, multiprocessors=4, turns=turns):
                found = outputs_and_gradients(attend, split(qkv, dtype))
            assert emulator.meetings >= before + 2
            assert all(map(torch.equal, found, alone))

    return run


def with_other_tables(case: Case) -> Case:
    """A case with the kernels and tiles of the other GPU, but compiled for this one."""

    def run(dtype: torch.dtype, emulator: Any) -> None:
        from gimp_fast.kernels.launch import ARCHITECTURES

        with emulator.device(ARCHITECTURES[CAPABILITIES[1]]):
            case(dtype, emulator)

    return run


def convolution(b: int, d: int, kernel: int, lengths: Sequence[int]) -> Case:
    """The convolution along the tokens and its gradients; packed if there are several lengths."""

    def run(dtype: torch.dtype, emulator: Any) -> None:
        bags = Bags.of_lengths(lengths, "cpu") if len(lengths) > 1 else None
        function = lambda v, w, add: token_conv(v, w, add=add, cu_seqlens=bags)  # noqa: E731
        compare_convolutions(function, b, d, kernel, lengths, dtype)

    return run


def needed_convolution(d: int, kernel: int) -> Case:
    """The same for every third token of packed bags, but for a stretch without any."""
    bags = Bags.of_lengths(LENGTHS, "cpu")
    index = torch.cat([torch.arange(0, 120, 3), torch.arange(420, bags.num_rows, 3)])

    def run(dtype: torch.dtype, emulator: Any) -> None:
        rows = _rows(bags, index)
        function = lambda v, w, add: token_conv_rows(v, w, rows, bags=bags, add=add)  # noqa: E731
        compare_convolutions(function, 1, d, kernel, LENGTHS, dtype, index)

    return run


def compare_convolutions(
    function: Callable[..., Tensor], b: int, d: int, kernel: int, lengths: Sequence[int],
    dtype: torch.dtype, index: Tensor | slice = slice(None),
) -> None:  # fmt: skip
    """Errors at most twice those of ``conv2d`` in the same dtype. The filter is in fp32."""
    heads, generator = 2, torch.Generator().manual_seed(0)
    x = torch.randn(3, b, sum(lengths), heads, d, generator=generator).to(dtype)
    v, add, grad = x.transpose(2, 3)
    weight = torch.randn(heads, 1, kernel, 1, generator=generator)

    def convolve(v: Tensor, weight: Tensor, add: Tensor) -> Tensor:
        parts = [part for part in v.split(list(lengths), 2) if part.shape[2]]
        weight = weight.to(v.dtype)
        parts = [conv2d(x, weight, padding=(kernel // 2, 0), groups=heads) for x in parts]
        return add + torch.cat(parts, 2)[:, :, index]

    def results(of: Callable[..., Tensor], convert: torch.dtype | None = None) -> list[Tensor]:
        inputs = [v, weight, add[:, :, index]]
        inputs = [x.to(convert or x.dtype).requires_grad_() for x in inputs]
        return outputs_and_gradients(of, inputs, grad[:, :, index])

    assert_no_worse(
        results(function), results(convolve), results(convolve, torch.float64), 2, stages=2
    )


CASES = {
    # Odd M, and rows of D that vectors of 16 bytes do not always fit.
    "B2-N50-D40-M37": attention(random_projections(2, 50, 2, 40, gain=1.5), 37),
    # One head is a case of its own: Triton makes a constant of an argument that is 1.
    "exact-N13-H1-D13-M16": attention(random_projections(1, 13, 1, 13, gain=1.5), 16),
    "packed-D64-M24": attention(random_projections(1, 630, 2, 64, gain=1.5), 24, LENGTHS),
    # Packed, though it is one bag, so that nothing is compiled again.
    "clustered-N250-D64-M24": attention(
        clustered_projections(torch.arange(250) * 6 // 250, 2, 64, gain=3, noise=0.01), 24, (250,)
    ),
    "some-queries-D64-M24": some_queries(64, 24),
    "meetings-N50-D16-M40": meetings(random_projections(1, 50, 2, 16, gain=1.5), 40),
    # Its kernels may be others; its fp32 products are three of TF32.
    # Four tiles of this GPU's own size, and so a team of four.
    "N80-H1-D40-M77": attention(random_projections(1, 80, 1, 40, gain=1.5), 77),
    "sm_90-packed-D64-M24": with_other_tables(
        attention(random_projections(1, 137, 2, 64, gain=1.5), 24, SHORT_LENGTHS)
    ),
    "convolution-B2-N131-D40-K33": convolution(2, 40, 33, (131,)),
    "convolution-packed-D80-K35": convolution(1, 80, 35, SHORT_LENGTHS),
    "needed-convolution-D64-K33": needed_convolution(64, 33),
}


def expected_kernels(dtype: torch.dtype) -> set[str]:
    """All of the package in bf16; in other dtypes those that a layer launches."""
    from ahead_of_time import record
    from ptx.launcher import kernel_names

    from gimp_fast.kernels.launch import ARCHITECTURES

    if dtype == torch.bfloat16:
        return kernel_names()
    return {x.name for i in CAPABILITIES for x in record(dtype, 64, ARCHITECTURES[i])}


def main(argv: list[str]) -> None:
    from ptx.launcher import install

    torch.set_num_threads(1)
    dtype, emulator = getattr(torch, argv[0]), install(CAPABILITIES[0])
    for name in argv[1:] or CASES:
        try:
            CASES[name](dtype, emulator)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
            fault = f"{type(error).__name__}: {error}"
        else:
            fault = None
        print(json.dumps({"case": name, "fault": fault}), flush=True)
    print(json.dumps({"not executed": sorted(expected_kernels(dtype) - set(emulator.executed))}))


if __name__ == "__main__":
    main(sys.argv[1:])
