"""Z W with Z the iterative pseudo-inverse of square matrices, and its gradients written by hand.

The first steps build Z with products that meet A again and so correct themselves; the last few
never form Z and multiply the thin W instead. A chain of thin steps alone has half the products, but
its rounding errors grow: the gradients of ill-conditioned matrices lose more than a digit. Three
thin steps cost no accuracy.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

THIN_STEPS = 3


def pinv_matmul_fwd(a: Tensor, w: Tensor, iterations: int) -> Tensor:
    """Z W, with Z ← ¼Z(13 − AZ(15 − AZ(7 − AZ))) from Z₀ = Aᵀ / (max row sum · max column sum).

    Nyströmformer (Xiong et al. 2021), section 3.3. With X = A Z and S = X² a step of X alone is
    ¼(13X − 15S + S(7X − S)), and the last steps apply P(X)w = ¼(13w − X(15w − X(7w − Xw))) to W.

    Args:
        a: (G, M, M) fp32 or fp64, rows that sum to one.
        w: (G, M, D).
        iterations: hyper-power steps.

    Returns:
        (G, M, D).
    """
    chain = _chain(a, iterations, record=False)
    u, _ = _apply(chain, w)
    return torch.bmm(chain.z, u)


def pinv_matmul_bwd(grad_y: Tensor, a: Tensor, w: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Gradients of A and W from that of Z W; the chain is recomputed.

    Args:
        grad_y: (G, M, D).
        a, w, iterations: as in the forward pass.
    """
    chain = _chain(a, iterations, record=True)
    u, slots = _apply(chain, w)
    grad_z = torch.bmm(grad_y, u.mT)
    grad_u = torch.bmm(chain.z.mT, grad_y)
    if chain.thin:
        grad_w, grads_x = _apply_bwd(chain, slots, grad_u.mul_(0.25))
        grad_x = _thin_bwd(chain, grads_x)
        grad_a = torch.bmm(grad_x, chain.z.mT)
        grad_z.baddbmm_(a.mT, grad_x)
    else:
        grad_w, grad_a = grad_u, torch.zeros_like(a)
    while chain.classic:
        grad_z = _classic_bwd(a, chain.classic.pop(), grad_z, grad_a)
    _start_bwd(a, chain.rows, chain.columns, grad_z, grad_a)
    return grad_a, grad_w


class _Chain(NamedTuple):
    """What the backward pass needs of the forward one."""

    rows: Tensor  # (G, M) sums
    columns: Tensor  # (G, M) sums
    classic: list[tuple[Tensor, Tensor, Tensor, Tensor]]  # z, x, t, r of each step
    z: Tensor  # (G, M, M) after the classic steps
    thin: list[tuple[Tensor, Tensor | None, Tensor | None]]  # x, s, t; the last has only x


def _chain(a: Tensor, iterations: int, record: bool) -> _Chain:
    rows, columns = a.sum(-1), a.sum(-2)
    z = a.mT / (rows.amax(-1) * columns.amax(-1))[:, None, None]
    classic = []
    for _ in range(iterations - THIN_STEPS):
        x = torch.bmm(a, z)
        t = torch.baddbmm(x, x, x, beta=7, alpha=-1)
        r = torch.baddbmm(x, x, t, beta=15, alpha=-1)
        if record:
            classic.append((z, x, t, r))
        z = torch.baddbmm(z, z, r, beta=3.25, alpha=-0.25)
    thin = []
    steps = min(iterations, THIN_STEPS)
    x = torch.bmm(a, z) if steps else None
    for _ in range(steps - 1):
        s = torch.bmm(x, x)
        t = torch.mul(x, 7).sub_(s)
        thin.append((x, s, t))
        x = torch.baddbmm(x, s, t, beta=3.25, alpha=0.25).sub_(s, alpha=3.75)
    if steps:
        thin.append((x, None, None))
    return _Chain(rows, columns, classic, z, thin)


def _apply(chain: _Chain, w: Tensor) -> tuple[Tensor, list[Tensor]]:
    """P(X)…w right to left -> u, and [t₂ | t₁ | w] of each step."""
    slots = []
    for x, _, _ in reversed(chain.thin):
        t1 = torch.baddbmm(w, x, w, beta=7, alpha=-1)
        t2 = torch.baddbmm(w, x, t1, beta=15, alpha=-1)
        slots.append(torch.cat([t2, t1, w], dim=-1))
        w = torch.baddbmm(w, x, t2, beta=3.25, alpha=-0.25)
    return w, slots[::-1]


def _apply_bwd(chain: _Chain, slots: list[Tensor], quarter: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Gradients of w and of every X, from a quarter of that of u."""
    grads_x = []
    for step, ((x, _, _), slot) in enumerate(zip(chain.thin, slots, strict=True)):
        second = torch.bmm(x.mT, quarter).neg_()
        third = torch.bmm(x.mT, second).neg_()
        grads_x.append(torch.bmm(torch.cat([quarter, second, third], dim=-1), slot.mT).neg_())
        rest = torch.mul(quarter, 13).add_(second, alpha=15).add_(third, alpha=7)
        quarter = rest.baddbmm_(x.mT, third, alpha=-1)
        if step < len(slots) - 1:
            quarter.mul_(0.25)
    return quarter, grads_x


def _thin_bwd(chain: _Chain, grads_x: list[Tensor]) -> Tensor:
    """Gradient of the first X, from those that each X has by itself."""
    total = grads_x.pop()
    for (x, s, t), own in zip(reversed(chain.thin[:-1]), reversed(grads_x), strict=True):
        grad_t = torch.bmm(s.mT, total).mul_(0.25)
        grad_s = torch.baddbmm(total, total, t.mT, beta=-3.75, alpha=0.25).sub_(grad_t)
        own.add_(total, alpha=3.25).add_(grad_t, alpha=7)
        own.baddbmm_(grad_s, x.mT).baddbmm_(x.mT, grad_s)
        total = own
    return total


def _classic_bwd(
    a: Tensor, step: tuple[Tensor, Tensor, Tensor, Tensor], grad: Tensor, grad_a: Tensor
) -> Tensor:
    """Gradient of the step's Z from that of the next; A's is added in place."""
    z, x, t, r = step
    grad_r = torch.bmm(z.mT, grad).mul_(-0.25)
    grad_z = torch.baddbmm(grad, grad, r.mT, beta=3.25, alpha=-0.25)
    grad_t = torch.bmm(x.mT, grad_r).neg_()
    grad_x = torch.baddbmm(grad_r, grad_r, t.mT, beta=15, alpha=-1).add_(grad_t, alpha=7)
    grad_x.baddbmm_(grad_t, x.mT, alpha=-1).baddbmm_(x.mT, grad_t, alpha=-1)
    grad_a.baddbmm_(grad_x, z.mT)
    return grad_z.baddbmm_(a.mT, grad_x)


def _start_bwd(a: Tensor, rows: Tensor, columns: Tensor, grad_z: Tensor, grad_a: Tensor) -> None:
    """Add A's gradient through Z₀: the transpose, and the two maxima, ties sharing evenly."""
    row_max, column_max = rows.amax(-1, keepdim=True), columns.amax(-1, keepdim=True)  # (G, 1)
    factor = 1 / (row_max * column_max)
    d_factor = -(a * grad_z.mT).sum((-1, -2))[:, None] * factor
    is_row, is_column = rows == row_max, columns == column_max  # (G, M)
    d_rows = is_row * (d_factor / (row_max * is_row.sum(-1, keepdim=True)))
    d_columns = is_column * (d_factor / (column_max * is_column.sum(-1, keepdim=True)))
    grad_a += d_rows[:, :, None] + d_columns[:, None, :]
    grad_a += grad_z.mT * factor[:, :, None]
