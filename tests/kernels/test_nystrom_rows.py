"""Some queries by the Triton kernels, which find the bounds of queries and of keys apart."""

from __future__ import annotations

import pytest
import torch
from builders.attention import loss_weight, random_projections, split
from builders.dtypes import dtype_id
from builders.errors import assert_near, attention_sizes

from gimp_fast.ops.nystrom_operators import (
    differentiable_rows,
    nystrom_rows_bwd,
    nystrom_rows_fwd,
)
from gimp_fast.ops.packing import Bags
from gimp_fast.ops.segment_means import segment_means
from gimp_fast.reference.nystrom_attention import nystrom_attention_reference

pytest.importorskip("triton")
pytestmark = pytest.mark.triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Triton's interpreter computes bf16 wrongly.
DTYPES = [torch.float32, torch.float16, *([torch.bfloat16] if DEVICE == "cuda" else [])]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}
M, D = 16, 13
SETTINGS = (M, 6, D**-0.5, "triton")
# Bags: one token; below, at and above M; without tokens; of two chunks.
LENGTHS = {"above-M": (M + 1,), "ragged": (1, 40, 0, M, 7), "chunks": (530, 33)}


def rows_of(bags, kind):
    """(R,) the first token of each bag; every third one; or all of every second bag."""
    tokens = torch.arange(bags.num_rows)
    bag = torch.searchsorted(bags.cu_seqlens[1:], tokens, right=True)
    wanted = {
        "first": tokens == bags.cu_seqlens[bag],
        "third": tokens % 3 == 0,
        "second-bag": bag % 2 == 1,
    }[kind]
    counts = torch.bincount(bag[wanted], minlength=len(bags)).tolist()
    return wanted.nonzero()[:, 0].to(DEVICE), Bags.of_lengths(counts, DEVICE)


def marks_of(q, bags):
    """Landmarks of all queries (1, H, T, D) -> (B, H, M, D)."""
    means = segment_means(q[0].transpose(0, 1).flatten(1), bags, M)
    return means.unflatten(-1, (-1, D)).transpose(1, 2)


def attend(qkv, dtype, index, rows, bags):
    """Output of the rows, and gradients of q, its landmarks' share included, k and v."""
    q, k, v = inputs = split(qkv, dtype)
    out, *_ = differentiable_rows(
        q[:, :, index], marks_of(q, bags), k, v, rows.cu_seqlens, bags.cu_seqlens, *SETTINGS
    )
    grad = loss_weight(split(qkv))[:, :, index]
    return [out, *torch.autograd.grad(out, inputs, grad.to(dtype))]


def reference(qkv, index, bags):
    inputs = split(qkv)
    out = nystrom_attention_reference(*inputs, num_landmarks=M, cu_seqlens=bags.cu_seqlens.cpu())
    grad = torch.zeros_like(out)
    grad[:, :, index] = loss_weight(inputs)[:, :, index]
    found = [out, *torch.autograd.grad(out, inputs, grad)]
    sizes = attention_sizes(found, inputs, loss_weight(inputs))
    return [found[0][:, :, index], *found[1:]], sizes


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("kind", ["first", "third", "second-bag"])
@pytest.mark.parametrize(
    "lengths",
    [
        pytest.param(lengths, id=name, marks=[pytest.mark.slow] if name == "chunks" else [])
        for name, lengths in LENGTHS.items()
    ],
)
def test_output_and_gradients_are_those_of_the_whole(lengths, kind, dtype):
    bags = Bags.of_lengths(lengths, DEVICE)
    qkv = random_projections(1, bags.num_rows, 2, D, gain=1.5).to(DEVICE)
    index, rows = rows_of(Bags.of_lengths(lengths), kind)
    found = attend(qkv, dtype, index, rows, bags)
    expected, sizes = reference(qkv, index, bags)
    assert_near(found, expected, TOLERANCE[dtype], sizes)


@pytest.mark.slow
def test_a_bag_is_bitwise_the_same_alone_and_packed():
    lengths = (40, 7, 37)
    bags = Bags.of_lengths(lengths, DEVICE)
    qkv = random_projections(1, bags.num_rows, 1, D).to(DEVICE)
    index, rows = rows_of(Bags.of_lengths(lengths), "third")
    packed = attend(qkv, torch.float32, index, rows, bags)
    for bag, (start, stop) in enumerate(bags.spans):
        first, last = rows.spans[bag]
        one, one_rows = (Bags.of_lengths([n], DEVICE) for n in (stop - start, last - first))
        q, k, v = split(qkv, torch.float32)
        alone, *_ = nystrom_rows_fwd(
            q[:, :, index[first:last]], marks_of(q, bags)[bag : bag + 1],
            k[:, :, start:stop], v[:, :, start:stop],
            one_rows.cu_seqlens, one.cu_seqlens, *SETTINGS,
        )  # fmt: skip
        assert torch.equal(alone, packed[0][:, :, first:last])


@pytest.mark.slow
def test_the_operators_are_registered_as_torch_expects():
    bags = Bags.of_lengths((5, 0, 35), DEVICE)
    q, k, v = split(random_projections(1, 40, 1, D).float().to(DEVICE))
    index, rows = rows_of(Bags.of_lengths((5, 0, 35)), "third")
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    tensors = [q[:, :, index], marks_of(q, bags), k, v]
    arguments = (rows.cu_seqlens, bags.cu_seqlens)
    inputs = [x.detach().requires_grad_() for x in tensors]
    torch.library.opcheck(nystrom_rows_fwd, (*inputs, *arguments, *SETTINGS), test_utils=checks)
    q, marks, k, v = (x.detach() for x in tensors)
    out, *saved = nystrom_rows_fwd(q, marks, k, v, *arguments, *SETTINGS)
    torch.library.opcheck(
        nystrom_rows_bwd, (out, q, k, v, *arguments, *saved, *SETTINGS), test_utils=checks[::2]
    )
