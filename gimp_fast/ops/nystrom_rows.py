"""A Nyström layer for the tokens whose outputs are needed: projection, attention, convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from gimp_fast.ops.nystrom_attention import choose_backend
from gimp_fast.ops.nystrom_cls import nystrom_cls
from gimp_fast.ops.nystrom_layer import nystrom_layer
from gimp_fast.ops.nystrom_operators import MODULES, differentiable_rows
from gimp_fast.ops.nystrom_plan import Plan, add_landmark_grads, project_landmarks, steady_linear
from gimp_fast.ops.overflow import has_overflowed, multiplied, score_factors
from gimp_fast.ops.packing import Bags, Rows, operands
from gimp_fast.ops.patch_embedding import take_rows
from gimp_fast.ops.products import linear, weight_grad
from gimp_fast.ops.registration import is_transformed, product_dtype
from gimp_fast.ops.segment_means import segment_means
from gimp_fast.ops.token_conv_rows import (
    add_token_conv_rows_grad,
    token_conv_rows,
    write_token_conv_rows,
)


def nystrom_rows(
    x: Tensor,
    weight: Tensor,
    conv_weight: Tensor | None,
    rows: Rows,
    bags: Bags,
    *,
    heads: int,
    num_landmarks: int = 256,
    pinv_iterations: int = 6,
    backend: str = "auto",
    longest: int | None = None,
) -> Tensor:
    """Rows of Nyström(Q, K, V) + conv(V), with Q, K, V = x W_qkv (GiMP eq. 1 and 2).

    It equals the rows of ``nystrom_layer`` to rounding. K and V are projected for all tokens, Q for
    the needed ones, and the landmarks of Q are projected means of x. The native backend projects no
    V, in fp32, of a bag with one needed row. Differentiable once, but with ``backend="reference"``
    more often.

    Args:
        x: (T, C), packed bags; under autocast of any floating dtype.
        weight: (3·H·D, C), W_qkv.
        conv_weight: (H, 1, K, 1), or None for attention alone.
        rows: the R needed tokens, which must be tokens of ``bags``; this is not checked.
        bags: bounds of the bags in x.
        heads: H.
        num_landmarks, pinv_iterations, backend: as in ``nystrom_attention``.
        longest: as in :func:`native_linear.takes`.

    Returns:
        (R, H·D).
    """
    settings = {"num_landmarks": num_landmarks, "pinv_iterations": pinv_iterations}
    chosen = choose_backend(backend, x.new_empty(0, dtype=product_dtype(x)))
    if chosen == "reference":
        qkv = linear(x, weight).unflatten(-1, (3, heads, -1))[None]  # (1, T, 3, H, D)
        out = nystrom_layer(
            qkv, conv_weight, cu_seqlens=bags.cu_seqlens, backend=chosen, **settings
        )
        return out[0].index_select(0, rows.index)
    short = len(bags) == 1 and bags.num_rows <= num_landmarks
    if chosen == "torch" and short:
        return _exact(x, weight, conv_weight, rows, bags, heads)
    composed = torch.compiler.is_compiling() or is_transformed(x)
    if chosen in MODULES and x.device.type == "cpu" and not composed:
        scale = (len(weight) // (3 * heads)) ** -0.5
        plan = Plan(
            rows, bags, heads, (num_landmarks, pinv_iterations, scale), longest, MODULES[chosen]
        )
        return _planned(x, weight, conv_weight, plan)
    return _composed(x, weight, conv_weight, rows, bags, heads, chosen, **settings)


def _planned(x: Tensor, weight: Tensor, conv_weight: Tensor | None, plan: Plan) -> Tensor:
    """The layer on a CPU. How a bag is computed does not depend on the bags beside it."""
    counts = plan.rows.bags.lengths
    if not plan.fuses or product_dtype(x) != torch.float32 or 1 not in counts:
        return _Rows.apply(x, weight, conv_weight, plan)
    if all(count == 1 for count in counts):
        return nystrom_cls(x, weight, conv_weight, plan)
    outs, places = [], []
    for several in (False, True):
        bags = [bag for bag, count in enumerate(counts) if count and (count > 1) == several]
        if bags:
            part, tokens, rows = plan.of_bags(bags)
            outs.append(_planned(x.index_select(0, tokens), weight, conv_weight, part))
            places.append(rows)
    return torch.cat(outs).index_select(0, torch.cat(places).argsort())


def _exact(
    x: Tensor, weight: Tensor, conv_weight: Tensor | None, rows: Rows, bags: Bags, heads: int
) -> Tensor:
    """One short bag, by exact attention, with few calls, whose time matters."""
    q, k, v = _projected(x, weight, rows, heads)
    out = F.scaled_dot_product_attention(q, k, v)
    if has_overflowed(out):
        q, k = multiplied(q, k, score_factors(q.detach(), k.detach()))
        out = F.scaled_dot_product_attention(q, k, v)
    return _with_conv(out, v, conv_weight, rows, bags)


def _composed(
    x: Tensor,
    weight: Tensor,
    conv_weight: Tensor | None,
    rows: Rows,
    bags: Bags,
    heads: int,
    backend: str,
    num_landmarks: int,
    pinv_iterations: int,
) -> Tensor:
    q, k, v = _projected(x, weight, rows, heads)
    packed = operands(bags, x.shape[0])
    q_packed = operands(rows.bags, q.shape[2])
    if max(bags.lengths, default=0) > num_landmarks:
        means = segment_means(x, bags, num_landmarks)
        q_marks = steady_linear(means, weight[: len(weight) // 3])
        q_marks = q_marks.unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, H, M, D)
    else:
        q_marks = q.new_zeros(len(bags), heads, num_landmarks, q.shape[3])
    settings = (num_landmarks, pinv_iterations, q.shape[3] ** -0.5, backend)
    bounds = (q_packed[1], packed[1])
    out, *_ = differentiable_rows(q, q_marks, k, v, q_packed[0], packed[0], *settings, *bounds)
    return _with_conv(out, v, conv_weight, rows, bags)


def _projected(x: Tensor, weight: Tensor, rows: Rows, heads: int) -> tuple[Tensor, ...]:
    """Q of the needed tokens (1, H, R, D), K and V of all (1, H, T, D)."""
    of_q, of_kv = weight.tensor_split([len(weight) // 3])
    q = steady_linear(take_rows(x, rows.index), of_q).unflatten(-1, (1, heads, -1))
    kv = steady_linear(x, of_kv).unflatten(-1, (2, heads, -1))
    return tuple(part.transpose(0, 1)[None] for part in (*q.unbind(1), *kv.unbind(1)))


def _with_conv(
    out: Tensor, v: Tensor, conv_weight: Tensor | None, rows: Rows, bags: Bags
) -> Tensor:
    """Add the convolution, and merge the heads: (1, H, R, D) -> (R, H·D)."""
    if conv_weight is not None:
        out = token_conv_rows(v, conv_weight, rows, bags=bags, add=out)
    return out[0].transpose(0, 1).flatten(1)


class _Rows(torch.autograd.Function):
    """The layer on a CPU. All gradients of x are added up in one tensor."""

    @staticmethod
    def forward(ctx, x, weight, conv_weight, plan):
        ctx.plan, ctx.dtypes = plan, (x.dtype, weight.dtype)
        dtype = product_dtype(x)
        with torch.autocast("cpu", enabled=False):
            x, weight = x.to(dtype), weight.to(dtype)
            of_q, of_kv = weight.tensor_split([len(weight) // 3])
            kv = steady_linear(x, of_kv, plan.longest)
            q = steady_linear(x.index_select(0, plan.rows.index), of_q, plan.longest)
            means, q_marks = project_landmarks(x, of_q, plan)
            q_heads, k, v = _heads(q, kv, plan.heads)
            out, *saved = plan.module.nystrom_fwd(
                q_heads, k, v, plan.bags.spans, *plan.settings,
                q_marks=q_marks, q_spans=plan.rows.bags.spans, **plan.fused(conv_weight),
            )  # fmt: skip
            if conv_weight is not None and not plan.fuses:
                write_token_conv_rows(out, v, conv_weight, *plan.places, add=out)
        ctx.save_for_backward(x, weight, conv_weight, q, kv, means, *saved)
        return out[0].transpose(0, 1).flatten(1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight, conv_weight, q, kv, means, *saved = ctx.saved_tensors
        plan, of_q, of_kv = ctx.plan, *weight.tensor_split([len(weight) // 3])
        grad = grad.unflatten(1, (plan.heads, -1)).transpose(0, 1)[None]  # (1, H, R, D)
        grad_q, grad_kv, grad_conv = torch.empty_like(q), torch.empty_like(kv), None
        grads = _heads(grad_q, grad_kv, plan.heads)
        q_heads, k, v = _heads(q, kv, plan.heads)
        with torch.autocast("cpu", enabled=False):
            _, _, _, grad_marks, *of_conv = plan.module.nystrom_bwd(
                grad, q_heads, k, v, plan.bags.spans, *saved, *plan.settings, grads=grads,
                q_spans=plan.rows.bags.spans, marks_given=True, **plan.fused(conv_weight),
            )  # fmt: skip
            if conv_weight is not None:
                if not of_conv:
                    given = (grads[2], grad, v, conv_weight)
                    of_conv = [add_token_conv_rows_grad(*given, *plan.places)]
                grad_conv = of_conv[0].to(conv_weight.dtype)
            grad_marks = grad_marks.to(x.dtype).transpose(1, 2).flatten(2)  # (B, M, H·D)
            of_queries = weight_grad(grad_q, x.index_select(0, plan.rows.index))
            longest = plan.longest
            grad_x = linear(grad_kv, of_kv.t(), longest=longest)
            add_landmark_grads(grad_x, of_queries, grad_marks, means, of_q, plan)
            grad_weight = torch.cat([of_queries, weight_grad(grad_kv, x)])
            grad_x.index_add_(0, plan.rows.index, linear(grad_q, of_q.t(), longest=longest))
        return grad_x.to(ctx.dtypes[0]), grad_weight.to(ctx.dtypes[1]), grad_conv, None


def _heads(q: Tensor, kv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(R, H·D), (T, 2·H·D) -> views (1, H, R, D), (1, H, T, D) twice."""
    parts = (q.unflatten(1, (1, heads, -1)), kv.unflatten(1, (2, heads, -1)))
    q, k, v = (part.transpose(0, 1)[None] for x in parts for part in x.unbind(1))
    return q, k, v
