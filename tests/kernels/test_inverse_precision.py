"""Why bf16 inputs may have one TF32 product each: what tensor cores cut off is emulated here."""

from __future__ import annotations

import pytest
import torch

from gimp_fast.reference.nystrom_attention import (
    landmarks_reference,
    nystrom_attention_reference,
    pinv_reference,
)

pytest.importorskip("triton")

N, H, D, M = 768, 1, 32, 128


def truncated(x):
    """fp32 as a TF32 tensor core reads it: ten bits of mantissa, the rest cut off."""
    return (x.contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32)


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return truncated(a) @ truncated(b)

    @staticmethod
    def backward(ctx, grad):
        a, b = (truncated(x) for x in ctx.saved_tensors)
        return truncated(grad) @ b.mT, a.mT @ truncated(grad)


def inverse_as_in_the_kernels(a, w):
    """Four steps that build Z, two that never form it, every product truncated."""
    product = Product.apply
    z = a.mT / (a.sum(-1).amax(-1) * a.sum(-2).amax(-1))[..., None, None]
    for _ in range(4):
        x = product(a, z)
        t = 7 * x - product(x, x)
        z = 0.25 * (13 * z - product(z, 15 * x - product(x, t)))
    chain = [product(a, z)]
    for _ in range(1):
        x = chain[-1]
        s = product(x, x)
        chain.append(0.25 * (13 * x - 15 * s + product(s, 7 * x - s)))
    for x in reversed(chain):
        w = 0.25 * (13 * w - product(x, 15 * w - product(x, 7 * w - product(x, w))))
    return product(z, w)


def attend(qkv, weight, inverse, dtype):
    q, k, v = (x.transpose(1, 2).to(dtype).requires_grad_() for x in qkv.unbind(2))
    scale = D**-0.5
    q_marks, k_marks = (landmarks_reference(x.float(), M).to(dtype) for x in (q, k))
    a = (q_marks.float() * scale @ k_marks.float().mT).softmax(-1)
    values = ((q_marks * scale) @ k.mT).softmax(-1) @ v
    mixed = inverse(a, values.float()).to(dtype)
    out = ((q * scale) @ k_marks.mT).softmax(-1) @ mixed
    return [out, *torch.autograd.grad(out, (q, k, v), weight.to(dtype))]


def exact(qkv, weight):
    q, k, v = (x.transpose(1, 2).requires_grad_() for x in qkv.unbind(2))
    out = nystrom_attention_reference(q, k, v, num_landmarks=M)
    return [out, *torch.autograd.grad(out, (q, k, v), weight)]


@pytest.mark.parametrize("kind", ["random", "peaked", "clustered"])
def test_bf16_loses_nothing_to_one_truncated_product(kind):
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(1, N, 3, H, D, generator=generator, dtype=torch.float64)
    if kind == "peaked":
        qkv *= 2
    if kind == "clustered":
        centres = torch.randn(9, 3, H, D, generator=generator, dtype=torch.float64) * 2
        qkv = centres[torch.arange(N) * 9 // N][None] + 0.05 * qkv
    qkv = qkv.bfloat16().double()
    weight = torch.randn(1, H, N, D, generator=generator).bfloat16().double()
    expected = exact(qkv, weight)
    plain = attend(qkv, weight, lambda a, w: pinv_reference(a, 6) @ w, torch.bfloat16)
    found = attend(qkv, weight, inverse_as_in_the_kernels, torch.bfloat16)
    for a, b, c in zip(found, plain, expected, strict=True):
        assert (a.double() - c).norm() <= 1.3 * (b.double() - c).norm()
