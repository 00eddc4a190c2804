"""x Wᵀ + b by whichever of torch's two CPU libraries is the faster, with its gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gimp_fast.ops.products import is_fast

# Rows of one product of the weight's gradient: oneDNN takes long sums of few columns slowly.
ROWS = 1000


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``torch.nn.functional.linear``, faster in fp32 on processors whose AVX-512 MKL leaves idle.

    Args:
        x: (..., C).
        weight: (O, C).
        bias: (O,).

    Returns:
        (..., O).
    """
    if (
        not is_fast(x, x.numel() * weight.shape[0])
        or weight.dtype != x.dtype
        or torch.is_autocast_enabled("cpu")
        or torch.compiler.is_compiling()
    ):
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)


class Linear(torch.nn.Linear):
    """``torch.nn.Linear`` by :func:`linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def _product(x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, w, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, weight, bias):
        return _product(x, weight, bias)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        grad_x = linear(grad, weight.t()) if wants_x else None
        grad_weight = _weight_grad(grad.flatten(0, -2), x.flatten(0, -2)) if wants_weight else None
        return grad_x, grad_weight, grad.flatten(0, -2).sum(0) if wants_bias else None


def _weight_grad(grad: Tensor, x: Tensor) -> Tensor:
    """gradᵀ x of (R, O) and (R, C), summed over rows in a fixed order."""
    if torch.is_grad_enabled():
        return grad.t() @ x
    total = None
    for rows in range(0, len(x), ROWS):
        # The copy is small, and oneDNN takes twice as long to multiply the columns in place.
        some, grads = x[rows : rows + ROWS].t().contiguous(), grad[rows : rows + ROWS].t()
        if total is None:
            total = _product(some, grads)
        else:
            total = torch.ops.mkldnn._linear_pointwise(some, total, grads, None, "add")
    return total.t()
