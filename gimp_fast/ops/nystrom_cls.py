"""A Nyström layer for one token of each bag, such as its CLS token, by the C++ operators.

With t the weights that the token's query gives to the tokens n of its bag, and f the filter of the
residual convolution around it, head h of the output is

    out_h = W_v,h Σ_n (t_nh + f_nh) x_n

so V is needed for no token.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gimp_fast.ops import nystrom_native
from gimp_fast.ops.nystrom_plan import Plan, add_landmark_grads, project_landmarks, steady_linear
from gimp_fast.ops.products import linear, weight_grad


def nystrom_cls(x: Tensor, weight: Tensor, conv_weight: Tensor | None, plan: Plan) -> Tensor:
    """:func:`gimp_fast.ops.nystrom_rows.nystrom_rows` for bags with one needed row each.

    Args:
        x: (T, C), packed bags, computed in fp32.
        weight: (3·H·D, C).
        conv_weight: (H, 1, K, 1) or None.

    Returns:
        (B, H·D), fp32.
    """
    return _Cls.apply(x, weight, conv_weight, plan)


class _Cls(torch.autograd.Function):
    """All gradients of x are added up in one tensor."""

    @staticmethod
    def forward(ctx, x, weight, conv_weight, plan):
        ctx.plan, ctx.dtypes = plan, (x.dtype, weight.dtype)
        with torch.autocast("cpu", enabled=False):
            x, weight = x.float().contiguous(), weight.float().contiguous()
            of_q, of_k, of_v = weight.chunk(3)
            k = steady_linear(x, of_k, plan.longest)
            q = steady_linear(x.index_select(0, plan.rows.index), of_q, plan.longest)
            means, q_marks = project_landmarks(x, of_q, plan)
            weights, *saved = nystrom_native.weights_fwd(
                _heads(q, plan), _heads(k, plan), plan.bags.spans, *plan.settings, q_marks,
                **plan.fused(conv_weight),
            )  # fmt: skip
            grouped, bounds = torch.ops.gimp_fast, list(plan.bags.bounds)
            sums = grouped.grouped_linear_bwd_weight(weights, x, bounds)  # (B, H, C)
            sums = sums.transpose(0, 1).flatten(0, 1)  # (H·B, C)
            out = grouped.grouped_linear_fwd(sums, _by_head(of_v, plan), _bounds_of_heads(plan))
        ctx.save_for_backward(x, weight, conv_weight, q, k, means, weights, sums, *saved)
        return out.unflatten(0, (plan.heads, -1)).transpose(0, 1).flatten(1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight, conv_weight, q, k, means, weights, sums, *saved = ctx.saved_tensors
        plan, (of_q, of_k, of_v) = ctx.plan, weight.chunk(3)
        grouped, longest = torch.ops.gimp_fast, plan.longest
        bounds, of_heads = list(plan.bags.bounds), _bounds_of_heads(plan)
        grad_q, grad_k = torch.empty_like(q), torch.empty_like(k)
        with torch.autocast("cpu", enabled=False):
            grad = grad.unflatten(1, (plan.heads, -1)).transpose(0, 1).contiguous()
            grad = grad.flatten(0, 1)  # (H·B, D)
            grad_of_v = grouped.grouped_linear_bwd_weight(grad, sums, of_heads)  # (H, D, C)
            grad_sums = torch.zeros_like(sums)
            grouped.grouped_linear_bwd_x(grad, _by_head(of_v, plan), of_heads, grad_sums)
            grad_sums = grad_sums.unflatten(0, (plan.heads, -1)).transpose(0, 1).contiguous()
            grad_weights = grouped.grouped_linear_fwd(x, grad_sums, bounds)  # (T, H)
            grad_marks, grad_conv = nystrom_native.weights_bwd(
                grad_weights, _heads(q, plan), _heads(k, plan), plan.bags.spans, *saved,
                *plan.settings, grads=(_heads(grad_q, plan), _heads(grad_k, plan)),
                **plan.fused(conv_weight),
            )  # fmt: skip
            grad_marks = grad_marks.transpose(1, 2).flatten(2)  # (B, M, H·D)
            of_queries = weight_grad(grad_q, x.index_select(0, plan.rows.index))
            grad_x = linear(grad_k, of_k.t(), longest=longest).contiguous()
            grouped.grouped_linear_bwd_x(weights, grad_sums, bounds, grad_x)
            add_landmark_grads(grad_x, of_queries, grad_marks, means, of_q, plan)
            grad_weight = torch.cat([of_queries, weight_grad(grad_k, x), grad_of_v.flatten(0, 1)])
            grad_x.index_add_(0, plan.rows.index, linear(grad_q, of_q.t(), longest=longest))
        grad_conv = None if conv_weight is None else grad_conv.to(conv_weight.dtype)
        return grad_x.to(ctx.dtypes[0]), grad_weight.to(ctx.dtypes[1]), grad_conv, None


def _heads(x: Tensor, plan: Plan) -> Tensor:
    """(R, H·D) -> a view (1, H, R, D)."""
    return x.unflatten(1, (plan.heads, -1)).transpose(0, 1)[None]


def _by_head(of_v: Tensor, plan: Plan) -> Tensor:
    """(H·D, C) -> (H, D, C): a head is a group of rows with a weight of its own."""
    return of_v.unflatten(0, (plan.heads, -1))


def _bounds_of_heads(plan: Plan) -> list[int]:
    return [head * len(plan.bags) for head in range(plan.heads + 1)]
