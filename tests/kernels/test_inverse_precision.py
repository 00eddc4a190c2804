"""Why one TF32 product is enough for bf16 inputs: the truncation of tensor cores is emulated."""

from __future__ import annotations

import pytest
import torch
from builders.attention import (
    clustered_projections,
    loss_weight,
    outputs_and_gradients,
    random_projections,
    split,
)
from builders.errors import assert_no_worse, attention_sizes

from gimp_fast.reference.nystrom_attention import (
    landmarks_reference,
    nystrom_attention_reference,
    pinv_reference,
)

pytest.importorskip("triton")

N, H, D, M = 768, 1, 32, 128


def truncated(x):
    """fp32 as a TF32 tensor core reads it: ten bits of mantissa."""
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


def composition(q, k, v, inverse):
    """What one writes in torch, with this inverse in fp32: ``inverse(A, W)`` is Z W."""
    scale = D**-0.5
    q_marks, k_marks = (landmarks_reference(x.float(), M).to(x.dtype) for x in (q, k))
    a = (q_marks.float() * scale @ k_marks.float().mT).softmax(-1)
    values = ((q_marks * scale) @ k.mT).softmax(-1) @ v
    mixed = inverse(a, values.float()).to(q.dtype)
    return ((q * scale) @ k_marks.mT).softmax(-1) @ mixed


@pytest.mark.parametrize("kind", ["random", "peaked", "clustered"])
def test_bf16_loses_nothing_to_one_truncated_product(kind):
    qkv = random_projections(1, N, H, D, gain=2.0 if kind == "peaked" else 1.0)
    if kind == "clustered":
        qkv = clustered_projections(torch.arange(N) * 9 // N, H, D, gain=2, noise=0.05)
    inputs, exact = split(qkv, torch.bfloat16), split(qkv.bfloat16().double())
    expected = outputs_and_gradients(nystrom_attention_reference, exact, num_landmarks=M)
    plain, found = (
        outputs_and_gradients(composition, inputs, inverse=inverse)
        for inverse in (lambda a, w: pinv_reference(a, 6) @ w, inverse_as_in_the_kernels)
    )
    sizes = attention_sizes(expected, exact, loss_weight(exact))
    assert_no_worse(found, plain, expected, 1.3, sizes)
