"""LayerNorm: that of torch, and under autocast on a GPU without casts of the tokens."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gimp_fast.nn.layer_norm import LayerNorm

DIM = 48


def pair(device="cpu"):
    torch.manual_seed(0)
    ours, peer = LayerNorm(DIM), nn.LayerNorm(DIM)
    with torch.no_grad():
        ours.weight.normal_(1, 0.2)
        ours.bias.normal_()
    peer.load_state_dict(ours.state_dict())
    return ours.to(device), peer.to(device)


def results(norm, x):
    x = x.detach().requires_grad_()
    out = norm(x)
    weight = torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out)
    inputs = (x, norm.weight, norm.bias)
    return out, *torch.autograd.grad((out.float() * weight).sum(), inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_on_a_cpu_is_torchs_own(dtype):
    x = torch.randn(3, 7, DIM, dtype=dtype)
    ours, peer = pair()
    with torch.autocast("cpu", torch.bfloat16):
        for a, b in zip(results(ours, x), results(peer, x), strict=True):
            assert a.dtype == b.dtype
            assert torch.equal(a, b)


@pytest.mark.gpu
def test_under_autocast_on_a_gpu_keeps_the_dtype_and_rounds_as_it_does():
    x = torch.randn(3, 700, DIM, device="cuda", dtype=torch.bfloat16)
    ours, peer = pair("cuda")
    with torch.autocast("cuda", torch.bfloat16):
        found, expected = results(ours, x), results(peer, x)
    assert found[0].dtype == torch.bfloat16
    assert [g.dtype for g in found[1:]] == [torch.bfloat16, torch.float32, torch.float32]
    for a, b in zip(found, expected, strict=True):
        assert (a.float() - b.float()).norm() <= 1e-2 * b.float().norm()


@pytest.mark.gpu
def test_without_autocast_on_a_gpu_is_torchs_own():
    x = torch.randn(3, 700, DIM, device="cuda")
    ours, peer = pair("cuda")
    for a, b in zip(results(ours, x), results(peer, x), strict=True):
        assert torch.equal(a, b)
