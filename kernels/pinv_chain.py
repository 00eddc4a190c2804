"""The steps of the pseudo-inverse on the device; fp32.

As in ``gimp_fast.ops.pinv`` the first steps build Z and correct themselves; the last two never form
it, and are applied to W. A team meets between two products: ``gimp_fast.kernels.pinv_products``.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from gimp_fast.kernels.pinv_products import (
    Shape,
    meet,
    product,
    product_and_sum,
    product_plus,
    product_plus_two,
)

THIN_STEPS = 2


class Steps(NamedTuple):
    """Steps that build Z, and steps that are applied to W; whether all are kept, or the last."""

    classic: int
    thin: int
    keeps: bool


def steps_of(iterations: int, keeps: bool) -> Steps:
    thin = min(iterations, THIN_STEPS)
    return Steps(iterations - thin, thin, keeps)


def room_size(steps: Steps, shape: Shape) -> int:
    """Floats that the chain takes: sums, then the matrices in the order of :func:`run_chain`."""
    kept = max(steps.classic, 1) if steps.keeps else 1
    squares = kept + 1 + 3 * kept + 4
    narrows = 3 * max(steps.thin, 1) + 1
    return 2 * shape.m + squares * shape.m**2 + narrows * shape.m * shape.d


@triton.jit
def kept_steps(STEPS: tl.constexpr):
    """Classic steps for which there is room."""
    kept: tl.constexpr = STEPS[0] if STEPS[2] and STEPS[0] > 0 else 1
    return kept


@triton.jit
def last_z(room, STEPS: tl.constexpr, M: tl.constexpr):
    """Z after the classic steps."""
    last: tl.constexpr = STEPS[0] if STEPS[2] else STEPS[0] % 2
    return room + 2 * M + last * M * M


@triton.jit
def thin_xs(room, STEPS: tl.constexpr, M: tl.constexpr):
    """X, S = X² and T = 7X − S of the first thin step, and X of the second."""
    return room + 2 * M + (4 * kept_steps(STEPS) + 1) * M * M


@triton.jit
def thin_slots(room, STEPS: tl.constexpr, M: tl.constexpr):
    """t₁, t₂ and the result of each thin step."""
    return thin_xs(room, STEPS, M) + 4 * M * M


@triton.jit
def scaled_w(room, STEPS: tl.constexpr, M: tl.constexpr, D: tl.constexpr):
    slots: tl.constexpr = 3 * STEPS[1] if STEPS[1] > 0 else 3
    return thin_slots(room, STEPS, M) + slots * M * D


@triton.jit
def end_of_chain(room, STEPS: tl.constexpr, M: tl.constexpr, D: tl.constexpr):
    return scaled_w(room, STEPS, M, D) + M * D


@triton.jit
def applied(room, STEPS: tl.constexpr, M: tl.constexpr, D: tl.constexpr):
    """What Z is multiplied by: the scaled W after the thin steps."""
    u = scaled_w(room, STEPS, M, D)
    if STEPS[1] > 0:
        u = thin_slots(room, STEPS, M) + 2 * M * D
    return u


@triton.jit
def tile_of(a, r, c, M: tl.constexpr):
    """Elements of a contiguous (M, M) matrix, zero outside."""
    inside = (r < M)[:, None] & (c < M)[None, :]
    return tl.load(a + r[:, None] * M + c[None, :], mask=inside, other=0.0)


@triton.jit(noinline=True)
def _start(a, room, rank, team, BLOCK_M: tl.constexpr, SHAPE: tl.constexpr):
    """Z₀ = Aᵀ / (largest row sum · largest column sum); one program keeps the sums (2, M)."""
    M: tl.constexpr = SHAPE[0]
    ROWS: tl.constexpr = 16
    c = tl.arange(0, BLOCK_M)
    column_sums = tl.zeros([BLOCK_M], tl.float32)
    largest = tl.zeros([ROWS], tl.float32)
    for start in range(0, M, ROWS):
        r = start + tl.arange(0, ROWS)
        tile = tile_of(a, r, c, M)
        column_sums += tl.sum(tile, 0)
        row_sums = tl.sum(tile, 1)
        largest = tl.maximum(largest, row_sums)
        tl.store(room + r, row_sums, mask=(r < M) & (rank == 0))
    tl.store(room + M + c, column_sums, mask=(c < M) & (rank == 0))
    factor = 1.0 / (tl.max(largest, 0) * tl.max(column_sums, 0))
    z = room + 2 * M
    for row in range(rank * ROWS, M, team * ROWS):
        r = row + tl.arange(0, ROWS)
        tile = tile_of(a, r, c, M) * factor
        inside = (r < M)[:, None] & (c < M)[None, :]
        tl.store(z + c[None, :] * M + r[:, None], tile, mask=inside)


@triton.jit(noinline=True)
def run_chain(
    a, room, counter, arrived, rank, team, BLOCK_M: tl.constexpr, STEPS: tl.constexpr,
    SHAPE: tl.constexpr,
):  # fmt: skip
    """All steps on A, and the thin ones on the scaled W."""
    M: tl.constexpr = SHAPE[0]
    D: tl.constexpr = SHAPE[1]
    SQUARE: tl.constexpr = M * M
    NARROW: tl.constexpr = M * D
    CLASSIC: tl.constexpr = STEPS[0]
    THIN: tl.constexpr = STEPS[1]
    zs = room + 2 * M
    xs = zs + (kept_steps(STEPS) + 1) * SQUARE  # X, T and R of each classic step
    _start(a, room, rank, team, BLOCK_M, SHAPE)
    arrived = meet(counter, arrived, team)
    for step in range(CLASSIC):
        if STEPS[2]:
            z = zs + step * SQUARE
            next_z = z + SQUARE
            x = xs + 3 * step * SQUARE
        else:
            z = zs + (step % 2) * SQUARE
            next_z = zs + (1 - step % 2) * SQUARE
            x = xs
        t = x + SQUARE
        root = t + SQUARE
        product(x, 1.0, a, z, rank, team, "nn", M, M, M, SHAPE)
        arrived = meet(counter, arrived, team)
        product_plus(t, -1.0, x, x, 7.0, x, rank, team, "nn", M, M, M, SHAPE)
        arrived = meet(counter, arrived, team)
        product_plus(root, -1.0, x, t, 15.0, x, rank, team, "nn", M, M, M, SHAPE)
        arrived = meet(counter, arrived, team)
        product_plus(next_z, -0.25, z, root, 3.25, z, rank, team, "nn", M, M, M, SHAPE)
        arrived = meet(counter, arrived, team)

    first = thin_xs(room, STEPS, M)
    if THIN > 0:
        product(first, 1.0, a, last_z(room, STEPS, M), rank, team, "nn", M, M, M, SHAPE)
        arrived = meet(counter, arrived, team)
    if THIN > 1:
        s = first + SQUARE
        t = s + SQUARE
        product_and_sum(s, 1.0, first, first, t, -1.0, 7.0, first, rank, team, "nn", M, M, M, SHAPE)
        arrived = meet(counter, arrived, team)
        product_plus_two(
            t + SQUARE, 0.25, s, t, 3.25, first, -3.75, s, rank, team, "nn", M, M, M, SHAPE
        )
        arrived = meet(counter, arrived, team)

    u = scaled_w(room, STEPS, M, D)
    for back in tl.static_range(THIN):
        x = first + 3 * (THIN - 1 - back) * SQUARE
        t1 = thin_slots(room, STEPS, M) + 3 * (THIN - 1 - back) * NARROW
        t2 = t1 + NARROW
        product_plus(t1, -1.0, x, u, 7.0, u, rank, team, "nn", M, D, M, SHAPE)
        arrived = meet(counter, arrived, team)
        product_plus(t2, -1.0, x, t1, 15.0, u, rank, team, "nn", M, D, M, SHAPE)
        arrived = meet(counter, arrived, team)
        product_plus(t2 + NARROW, -0.25, x, t2, 3.25, u, rank, team, "nn", M, D, M, SHAPE)
        arrived = meet(counter, arrived, team)
        u = t2 + NARROW
    return arrived
