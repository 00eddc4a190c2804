"""Inputs of Nyström attention, its output with gradients, and a plain way to write it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gimp_fast.reference.nystrom_attention import landmarks_reference, pinv_reference

# Scores with their softmax, W = A₃V, Y = ZW, A₁Y: each rounds what the next one reads.
STAGES = 4


def shape_ids(shapes: Sequence[tuple[int, int, int, int, int]]) -> list[str]:
    return [f"B{b}-H{h}-N{n}-D{d}-M{m}" for b, h, n, d, m in shapes]


def random_projections(
    b: int, n: int, h: int, d: int, *, count: int = 3, gain: float = 1.0, seed: int = 0
) -> Tensor:
    """fp64 (B, N, count, H, D), as a qkv layer gives them: no q, k or v of it is contiguous."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(b, n, count, h, d, generator=generator, dtype=torch.float64) * gain


def clustered_projections(ids: Tensor, h: int, d: int, *, gain: float, noise: float) -> Tensor:
    """fp64 (1, N, 3, H, D) of tokens in clusters: landmarks nearly repeat, A is ill-conditioned.

    Args:
        ids: (N,) cluster of each token.
        gain: norm of a cluster's centre, per channel.
        noise: spread of the tokens around it.
    """
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(int(ids.max()) + 1, 3, h, d, generator=generator, dtype=torch.float64)
    spread = torch.randn(len(ids), 3, h, d, generator=generator, dtype=torch.float64)
    return (centres[ids] * gain + spread * noise)[None]


def split(qkv: Tensor, dtype: torch.dtype | None = None) -> list[Tensor]:
    """q, k and v (B, H, N, D): leaves that are strided views of one tensor."""
    parts = qkv.to(dtype or qkv.dtype).unbind(2)
    return [x.transpose(1, 2).detach().requires_grad_() for x in parts]


def loss_weight(inputs: Sequence[Tensor], seed: int = 1) -> Tensor:
    """The gradient of the output in a scalar loss: (B, H, N, D), and the same in every dtype."""
    b, h, n, d = inputs[0].shape
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(b, n, h, d, generator=generator).bfloat16()
    return weight.transpose(1, 2).to(inputs[0].device, inputs[0].dtype)


def outputs_and_gradients(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    grad: Tensor | None = None,
    **options: Any,
) -> list[Tensor]:
    """The output, then the gradient of each input in the loss ⟨grad, output⟩.

    Args:
        function: called with the inputs and the options.
        grad: :func:`loss_weight` unless given.
    """
    out = function(*inputs, **options)
    grad = loss_weight(inputs) if grad is None else grad
    return [out, *torch.autograd.grad(out, inputs, grad.to(out.dtype))]


def plain_composition(q: Tensor, k: Tensor, v: Tensor, *, num_landmarks: int) -> Tensor:
    """What one writes in torch: products and softmax in the dtype of q, the inverse in fp32."""
    scale = q.shape[-1] ** -0.5
    q_marks, k_marks = (landmarks_reference(x, num_landmarks) for x in (q, k))
    a = (q_marks.float() * scale @ k_marks.float().mT).softmax(-1)
    values = ((q_marks * scale) @ k.mT).softmax(-1) @ v
    mixed = (pinv_reference(a, 6) @ values.float()).to(q.dtype)
    return ((q * scale) @ k_marks.mT).softmax(-1) @ mixed
