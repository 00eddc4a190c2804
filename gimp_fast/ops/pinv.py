"""Z W, with Z the iterative pseudo-inverse of square matrices, and its handwritten gradients.

A step is Z ← ¼Z(13 − AZ(15 − AZ(7 − AZ))). It is computed on σZ and −A with σ³ = ¼, which leaves
four products and additions to diagonals: with N = −A, X = NZ, T = X + 7σ, R = XT + 15σ²,
Q = XR + 13σ³, the next Z is ZQ.

The first, classic steps build Z. They multiply by A each time, and so correct their own errors. The
last, thin steps never form Z: they compute the next X as XQ, and multiply W by each Q. A chain of
thin steps only would need half the products, but its rounding errors grow: gradients of
ill-conditioned matrices lose more than a digit. Two thin steps cost no accuracy.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gimp_fast.ops.products import precise_product, product

THIN_STEPS = 2
SIGMA = 0.25 ** (1 / 3)
ONCE, TWICE, THRICE = 7 * SIGMA, 15 * SIGMA**2, 13 * SIGMA**3


def pinv_matmul_fwd(a: Tensor, w: Tensor, iterations: int) -> Tensor:
    """Z W, from Z₀ = Aᵀ / (max row sum · max column sum) (Nyströmformer, Xiong et al. 2021, 3.3).

    Args:
        a: (G, M, M) fp32 or fp64; its rows sum to one.
        w: (G, M, D).
        iterations: hyper-power steps.

    Returns:
        (G, M, D).
    """
    chain = _chain(a, iterations, record=False)
    return precise_product(chain.z, _apply(chain.thin, w)[0].mT).mul_(1 / SIGMA)


def pinv_matmul_bwd(grad_y: Tensor, a: Tensor, w: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Gradients of A and W from that of Z W. The chain is computed again.

    Args:
        grad_y: (G, M, D).
        a, w, iterations: as in the forward pass.
    """
    chain = _chain(a, iterations, record=True)
    u, slots = _apply(chain.thin, w)
    grad_y = grad_y * (1 / SIGMA)
    grad_z = product(u, grad_y)
    grad_w, own = _apply_bwd(chain.thin, slots, product(grad_y.mT, chain.z.mT))
    grad_negated = None
    if chain.thin:
        grad_x = _thin_bwd(chain.thin, own)
        grad_negated = product(chain.z, grad_x.mT)
        grad_z = product(grad_x, chain.negated.mT, grad_z)
    while chain.classic:
        grad_z, grad_negated = _classic_bwd(
            chain.negated, chain.classic.pop(), grad_z, grad_negated
        )
    grad_a = torch.zeros_like(a) if grad_negated is None else -grad_negated.mT
    _start_bwd(a, grad_z.mul_(SIGMA), grad_a)
    return grad_a, grad_w.mT


class _Chain(NamedTuple):
    """What the backward pass needs of the forward one; (G, M, M) each."""

    negated: Tensor
    classic: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]  # Z, X, T, R, Q of each step
    z: Tensor  # after the classic steps
    thin: list[tuple[Tensor, Tensor | None, Tensor | None]]  # X, S, T of each; the last has X only


def _chain(a: Tensor, iterations: int, record: bool) -> _Chain:
    negated, z = -a, (a.mT * (SIGMA * _start_factor(a))).contiguous()
    classic, thin = [], []
    for _ in range(iterations - THIN_STEPS):
        x = product(negated, z.mT)
        t = _add_to_diagonal(x.clone(), ONCE)
        r = _add_to_diagonal(product(x, t.mT), TWICE)
        q = _add_to_diagonal(product(x, r.mT), THRICE)
        if record:
            classic.append((z, x, t, r, q))
        z = product(z, q.mT)
    steps = min(iterations, THIN_STEPS)
    if steps:
        x = product(negated, z.mT)
    for _ in range(steps - 1):
        s = product(x, x.mT)
        t = torch.add(s, x, alpha=ONCE)
        thin.append((x, s, t))
        x = product(s, t.mT, torch.mul(x, THRICE).add_(s, alpha=TWICE))
    if steps:
        thin.append((x, None, None))
    return _Chain(negated, classic, z, thin)


def _start_factor(a: Tensor) -> Tensor:
    return 1 / (a.sum(-1).amax(-1) * a.sum(-2).amax(-1))[:, None, None]


def _add_to_diagonal(x: Tensor, value: float) -> Tensor:
    x.diagonal(dim1=-2, dim2=-1).add_(value)
    return x


def _apply(thin: list[tuple], w: Tensor) -> tuple[Tensor, list[Tensor]]:
    """u = Q…Qw, right to left, and [t₂ | t₁ | w] of each step: u = Xt₂ + …, t₂ = Xt₁ + …"""
    slots = []
    for x, _, _ in reversed(thin):
        t1 = precise_product(x, w.mT, w * ONCE)
        t2 = precise_product(x, t1.mT, w * TWICE)
        slots.append(torch.cat([t2, t1, w], dim=-1))
        w = precise_product(x, t2.mT, w * THRICE)
    return w, slots[::-1]


# The gradients below are transposed, because `product` reads its first factor by rows.


def _apply_bwd(thin: list[tuple], slots: list[Tensor], grad: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Gradients of w (G, D, M) and of each X, without the path through the next X."""
    grads_x = []
    for (x, _, _), slot in zip(thin, slots, strict=True):
        second = product(grad, x.mT)
        third = product(second, x.mT)
        grads_x.append(product(slot, torch.cat([grad, second, third], dim=-2).mT))
        rest = torch.mul(grad, THRICE).add_(second, alpha=TWICE).add_(third, alpha=ONCE)
        grad = product(third, x.mT, rest)
    return grad, grads_x


def _thin_bwd(thin: list[tuple], own: list[Tensor]) -> Tensor:
    """Gradient of the first X, through all others, from those of :func:`_apply_bwd`."""
    grad = own[-1]
    for (x, s, t), grad_x in zip(reversed(thin[:-1]), reversed(own[:-1]), strict=True):
        grad_t = product(grad, s.mT)
        grad_s = product(t, grad.mT, torch.add(grad_t, grad, alpha=TWICE))
        grad_x.add_(grad, alpha=THRICE).add_(grad_t, alpha=ONCE)
        grad = product(x, grad_s.mT, product(grad_s, x.mT, grad_x))
    return grad


def _classic_bwd(
    negated: Tensor, step: tuple[Tensor, ...], grad: Tensor, grad_negated: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Gradient of the step's Z from that of the next, and that of −A, summed."""
    z, x, t, r, q = step
    grad_q = product(grad, z.mT)
    grad_r = product(grad_q, x.mT)
    grad_x = product(r, grad_q.mT, product(t, grad_r.mT, product(grad_r, x.mT)))
    grad_negated = product(z, grad_x.mT, grad_negated)
    return product(grad_x, negated.mT, product(q, grad.mT)), grad_negated


def _start_bwd(a: Tensor, grad_z: Tensor, grad_a: Tensor) -> None:
    """Add A's gradient through Z₀: the transpose, and two maxima, which ties share evenly."""
    rows, columns = a.sum(-1), a.sum(-2)  # (G, M)
    row_max, column_max = rows.amax(-1, keepdim=True), columns.amax(-1, keepdim=True)  # (G, 1)
    factor = _start_factor(a)
    is_row, is_column = rows == row_max, columns == column_max  # (G, M)
    grad_log = -(a * grad_z).sum((-1, -2))[:, None] * factor[..., 0]  # (G, 1)
    grad_rows = is_row * (grad_log / (row_max * is_row.sum(-1, keepdim=True)))
    grad_columns = is_column * (grad_log / (column_max * is_column.sum(-1, keepdim=True)))
    grad_a += grad_rows[:, :, None] + grad_columns[:, None, :]
    grad_a += grad_z * factor
