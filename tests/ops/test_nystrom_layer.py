"""Attention plus convolution of one projection: the composition, with one gradient."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from builders.attention import (
    STAGES,
    clustered_projections,
    loss_weight,
    outputs_and_gradients,
    plain_composition,
    random_projections,
    split,
)
from builders.dtypes import dtype_id
from builders.errors import assert_no_worse, attention_sizes

from gimp_fast.ops.nystrom_attention import nystrom_attention
from gimp_fast.ops.nystrom_layer import nystrom_layer
from gimp_fast.ops.packing import Bags
from gimp_fast.ops.token_conv import token_conv
from gimp_fast.reference.nystrom_attention import nystrom_attention_reference

SETTINGS = {"num_landmarks": 16, "pinv_iterations": 6}


def inputs(b, n, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(b, n, 3, 2, 8, generator=generator, dtype=torch.float64)
    conv = torch.randn(2, 1, 5, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    grad = torch.randn(b, n, 16, generator=generator, dtype=torch.float64)
    return [x.to(dtype).requires_grad_() for x in (qkv, conv)], grad.to(dtype)


def composed(qkv, conv, **kwargs):
    q, k, v = (x.transpose(1, 2) for x in qkv.unbind(2))
    out = nystrom_attention(q, k, v, **kwargs)
    if conv is not None:
        out = token_conv(v, conv, add=out, cu_seqlens=kwargs.get("cu_seqlens"))
    return out.transpose(1, 2).flatten(2)


def run(function, tensors, grad, **kwargs):
    out = function(*tensors, **(SETTINGS | kwargs))
    wanted = [x for x in tensors if x is not None]
    return [out, *torch.autograd.grad(out, wanted, grad)]


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("convolution", [True, False], ids=["conv", "plain"])
@pytest.mark.parametrize("bounds", [None, [0, 5, 5, 90]], ids=["batch", "packed"])
def test_is_the_composition(bounds, convolution, backend):
    tensors, grad = inputs(2 if bounds is None else 1, 90)
    tensors = tensors if convolution else [tensors[0], None]
    kwargs = {"backend": backend}
    if bounds is not None:
        kwargs["cu_seqlens"] = torch.tensor(bounds)
    found = run(nystrom_layer, tensors, grad, **kwargs)
    for a, b in zip(found, run(composed, tensors, grad, **kwargs), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.slow
@pytest.mark.triton
@pytest.mark.parametrize("convolution", [True, False], ids=["conv", "plain"])
@pytest.mark.parametrize("lengths", [None, [5, 0, 19]], ids=["batch", "packed"])
def test_on_a_gpu_is_the_composition(lengths, convolution):
    """There it is one function for autograd; without a GPU its kernels are interpreted."""
    pytest.importorskip("triton")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tensors, grad = inputs(*((2, 19) if lengths is None else (1, 24)), torch.float32)
    tensors = [x.detach().to(device).requires_grad_() for x in tensors]
    tensors = tensors if convolution else [tensors[0], None]
    kwargs = {"backend": "triton", "pinv_iterations": 1}
    if lengths is not None:
        kwargs["cu_seqlens"] = Bags.of_lengths(lengths, device)
    found = run(nystrom_layer, tensors, grad.to(device), **kwargs)
    expected = run(composed, tensors, grad.to(device), **kwargs)
    assert found[0].equal(expected[0])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_a_bag_is_bitwise_the_same_alone_and_packed():
    lengths = (3, 70, 1, 200)
    bags = [inputs(1, n, torch.float32, seed=n) for n in lengths]
    conv = bags[0][0][1]
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    qkv = torch.cat([tensors[0] for tensors, _ in bags], 1).detach().requires_grad_()
    grad = torch.cat([g for _, g in bags], 1)
    packed = run(nystrom_layer, [qkv, conv], grad, cu_seqlens=bounds)[:2]
    for (tensors, g), (start, stop) in zip(bags, pairwise(bounds.tolist()), strict=True):
        alone = run(nystrom_layer, [tensors[0], conv], g)[:2]
        for a, b in zip(packed, alone, strict=True):
            assert torch.equal(a[:, start:stop], b)


def test_functional_gradient_and_one_graph():
    tensors, grad = inputs(1, 60)
    expected = run(nystrom_layer, tensors, grad)[1]

    def loss(qkv):
        return (nystrom_layer(qkv, tensors[1].detach(), **SETTINGS) * grad).sum()

    torch.testing.assert_close(torch.func.grad(loss)(tensors[0].detach()), expected)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(tensors[0]), tensors[0])[0], expected)


# Conditions of A: 7e7, 2e4, 2e9 and 2e9.
def projections(kind, h=4, d=64, n=2048):
    """Random tokens, or twelve clusters of tokens in short runs; flat or peaked softmax."""
    if kind.startswith("random"):
        gain, n = (0.5, 2999) if kind == "random-flat" else (3.0, n)
        return random_projections(1, n, h, d, gain=gain)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 12, (n // 8,), generator=generator).repeat_interleave(8)
    gain = 0.5 if kind == "clustered-flat" else 1.6
    return clustered_projections(ids, h, d, gain=gain, noise=0.03)


@pytest.mark.parametrize(
    "kind", ["random-flat", "random-peaked", "clustered-flat", "clustered-peaked"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=dtype_id)
def test_error_is_at_most_twice_that_of_the_plain_composition(kind, dtype):
    qkv = projections(kind).to(dtype).double()

    def attend(function, dtype):
        return outputs_and_gradients(function, split(qkv, dtype), num_landmarks=256)

    single = dtype == torch.float32
    peer = attend(nystrom_attention_reference if single else plain_composition, dtype)
    expected = attend(nystrom_attention_reference, torch.float64)
    exact = split(qkv)
    sizes = attention_sizes(expected, exact, loss_weight(exact))
    assert_no_worse(attend(nystrom_attention, dtype), peer, expected, 2, sizes, STAGES)
