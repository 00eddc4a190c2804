"""Gradients of the pseudo-inverse's steps on the device; see ``gimp_fast.kernels.pinv_chain``."""

from __future__ import annotations

import triton
import triton.language as tl

from gimp_fast.kernels.pinv_chain import (
    applied,
    end_of_chain,
    kept_steps,
    last_z,
    scaled_w,
    thin_slots,
    thin_xs,
    tile_of,
)
from gimp_fast.kernels.pinv_products import (
    Shape,
    meet,
    product,
    product_and_sum,
    product_plus,
    product_plus_two,
)
from gimp_fast.kernels.pinv_range import SHRINK


def grads_size(shape: Shape) -> int:
    """Floats that the gradients take, after those of the chain."""
    return 7 * shape.m**2 + 6 * shape.m * shape.d


@triton.jit
def scaled_grad(room, STEPS: tl.constexpr, M: tl.constexpr, D: tl.constexpr):
    return end_of_chain(room, STEPS, M, D) + 7 * M * M + 5 * M * D


@triton.jit
def grads_of_chain(
    a, grad_a, grad_w, undo_w, undo_grad, room, counter, arrived, rank, team,
    BLOCK_M: tl.constexpr, STEPS: tl.constexpr, SHAPE: tl.constexpr,
):  # fmt: skip
    """Gradients of A and W from the scaled gradient of Z W.

    The room holds that, and what ``run_chain`` kept. ``undo_w`` and ``undo_grad`` undo the scaling.
    """
    M: tl.constexpr = SHAPE[0]
    D: tl.constexpr = SHAPE[1]
    SQUARE: tl.constexpr = M * M
    NARROW: tl.constexpr = M * D
    CLASSIC: tl.constexpr = STEPS[0]
    THIN: tl.constexpr = STEPS[1]
    z = last_z(room, STEPS, M)
    dz = end_of_chain(room, STEPS, M, D)
    scratch = dz + SQUARE  # three matrices
    dx = scratch + 3 * SQUARE
    own = dx + SQUARE  # of each thin X, by its own products
    narrows = own + 2 * SQUARE
    grad_y = scaled_grad(room, STEPS, M, D)
    product(dz, SHRINK, grad_y, applied(room, STEPS, M, D), rank, team, "nt", M, M, D, SHAPE)
    if THIN == 0:
        product(grad_w, undo_grad, z, grad_y, rank, team, "tn", M, D, M, SHAPE)
        _clear(grad_a, rank, team, SHAPE)
    else:
        product(narrows, 0.25, z, grad_y, rank, team, "tn", M, D, M, SHAPE)
    arrived = meet(counter, arrived, team)

    for step in tl.static_range(THIN):
        x = thin_xs(room, STEPS, M) + 3 * step * SQUARE
        slots = thin_slots(room, STEPS, M) + 3 * step * NARROW
        given = scaled_w(room, STEPS, M, D)
        result = grad_w
        share = undo_grad
        if step < THIN - 1:
            given = slots + 5 * NARROW
            result = narrows + NARROW
            share = tl.full([], 0.25, tl.float32)
        arrived = _grads_of_apply(
            x, slots, given, narrows + step * NARROW, narrows + 2 * NARROW, result,
            own + step * SQUARE, counter, arrived, rank, team, share, SHAPE,
        )  # fmt: skip
    if THIN > 0:
        total = own
        if THIN > 1:
            total = dx
            arrived = _grads_of_thin_step(
                thin_xs(room, STEPS, M), own + SQUARE, own, dx, scratch, counter, arrived, rank,
                team, SHAPE,
            )  # fmt: skip
        product(grad_a, 1.0, total, z, rank, team, "nt", M, M, M, SHAPE)
        product_plus(dz, 1.0, a, total, 1.0, dz, rank, team, "tn", M, M, M, SHAPE)
        arrived = meet(counter, arrived, team)

    zs = room + 2 * M
    xs = zs + (kept_steps(STEPS) + 1) * SQUARE
    for back in range(CLASSIC):
        classic_step = CLASSIC - 1 - back
        arrived = _grads_of_classic_step(
            a, zs + classic_step * SQUARE, xs + 3 * classic_step * SQUARE, dz, scratch, dx, grad_a,
            counter, arrived, rank, team, SHAPE,
        )  # fmt: skip
    _add_grad_of_start(
        a, room, dz, grad_a, undo_w, undo_grad, rank, team, BLOCK_M, SHAPE
    )  # fmt: skip
    return meet(counter, arrived, team)


@triton.jit(noinline=True)
def _grads_of_apply(
    x, slots, given, one, scratch, result, own, counter, arrived, rank, team, share,
    SHAPE: tl.constexpr,
):  # fmt: skip
    """One thin step on ``given``, from ``one``, a quarter of the gradient of what it gave.

    ``share`` of the gradient of ``given`` goes into ``result``, that of X into ``own``.
    """
    M: tl.constexpr = SHAPE[0]
    D: tl.constexpr = SHAPE[1]
    t1 = slots
    t2 = slots + M * D
    two = scratch
    three = scratch + M * D
    rest = three + M * D
    product_and_sum(two, -1.0, x, one, rest, -15.0, 13.0, one, rank, team, "tn", M, D, M, SHAPE)
    arrived = meet(counter, arrived, team)
    product(three, -1.0, x, two, rank, team, "tn", M, D, M, SHAPE)
    arrived = meet(counter, arrived, team)
    product_plus_two(
        result, -share, x, three, 7.0 * share, three, share, rest, rank, team, "tn", M, D, M, SHAPE
    )
    product(own, -SHRINK, one, t2, rank, team, "nt", M, M, D, SHAPE)
    product_plus(own, -SHRINK, two, t1, 1.0, own, rank, team, "nt", M, M, D, SHAPE)
    product_plus(own, -SHRINK, three, given, 1.0, own, rank, team, "nt", M, M, D, SHAPE)
    return meet(counter, arrived, team)


@triton.jit(noinline=True)
def _grads_of_thin_step(
    x, total, own, dx, scratch, counter, arrived, rank, team, SHAPE: tl.constexpr
):
    """Gradient of X into ``dx``, from that of the next X, ``total``, and X's own products."""
    M: tl.constexpr = SHAPE[0]
    s = x + M * M
    t = s + M * M
    ds = scratch
    dt = scratch + M * M
    product(dt, 0.25, s, total, rank, team, "tn", M, M, M, SHAPE)
    arrived = meet(counter, arrived, team)
    product_plus_two(ds, 0.25, total, t, -3.75, total, -1.0, dt, rank, team, "nt", M, M, M, SHAPE)
    arrived = meet(counter, arrived, team)
    product_plus_two(dx, 1.0, ds, x, 3.25, total, 7.0, dt, rank, team, "nt", M, M, M, SHAPE)
    product_plus_two(dx, 1.0, x, ds, 1.0, dx, 1.0, own, rank, team, "tn", M, M, M, SHAPE)
    return meet(counter, arrived, team)


@triton.jit(noinline=True)
def _grads_of_classic_step(
    a, z, x, dz, scratch, dx, grad_a, counter, arrived, rank, team, SHAPE: tl.constexpr
):
    """Replace the gradient of the next Z in ``dz`` by that of Z; A's is added in place."""
    M: tl.constexpr = SHAPE[0]
    t = x + M * M
    root = t + M * M
    dr = scratch
    dt = scratch + M * M
    kept = dt + M * M
    product(dr, -0.25, z, dz, rank, team, "tn", M, M, M, SHAPE)
    product_plus(kept, -0.25, dz, root, 3.25, dz, rank, team, "nt", M, M, M, SHAPE)
    arrived = meet(counter, arrived, team)
    product(dt, -1.0, x, dr, rank, team, "tn", M, M, M, SHAPE)
    arrived = meet(counter, arrived, team)
    product_plus_two(dx, -1.0, dr, t, 15.0, dr, 7.0, dt, rank, team, "nt", M, M, M, SHAPE)
    product_plus(dx, -1.0, dt, x, 1.0, dx, rank, team, "nt", M, M, M, SHAPE)
    product_plus(dx, -1.0, x, dt, 1.0, dx, rank, team, "tn", M, M, M, SHAPE)
    arrived = meet(counter, arrived, team)
    product_plus(grad_a, 1.0, dx, z, 1.0, grad_a, rank, team, "nt", M, M, M, SHAPE)
    product_plus(dz, 1.0, a, dx, 1.0, kept, rank, team, "tn", M, M, M, SHAPE)
    return meet(counter, arrived, team)


@triton.jit
def _clear(x, rank, team, SHAPE: tl.constexpr):
    SIZE: tl.constexpr = SHAPE[0] * SHAPE[0]
    for start in range(rank * 1024, SIZE, team * 1024):
        at = start + tl.arange(0, 1024)
        tl.store(x + at, tl.zeros([1024], tl.float32), mask=at < SIZE)


@triton.jit(noinline=True)
def _add_grad_of_start(
    a, room, dz, grad_a, undo_w, undo_grad, rank, team, BLOCK_M: tl.constexpr, SHAPE: tl.constexpr
):
    """Add the gradient of A through Z₀ = Aᵀ / (largest row sum · largest column sum); undo scales.

    Rows, or columns, that share the largest sum share its gradient evenly.
    """
    M: tl.constexpr = SHAPE[0]
    ROWS: tl.constexpr = 16
    m = tl.arange(0, BLOCK_M)
    row_sums = tl.load(room + m, mask=m < M, other=0.0)
    column_sums = tl.load(room + M + m, mask=m < M, other=0.0)
    largest_row = tl.max(row_sums, 0)
    largest_column = tl.max(column_sums, 0)
    factor = 1.0 / (largest_row * largest_column)
    inner = tl.zeros([ROWS], tl.float32)
    for start in range(0, M, ROWS):
        r = start + tl.arange(0, ROWS)
        inside = (r < M)[:, None] & (m < M)[None, :]
        grad = tl.load(dz + m[None, :] * M + r[:, None], mask=inside, other=0.0)
        inner += tl.sum(tile_of(a, r, m, M) * grad, 1)
    d_factor = -tl.sum(inner, 0) * factor
    row_ties = tl.sum((row_sums == largest_row).to(tl.float32), 0)
    column_ties = tl.sum((column_sums == largest_column).to(tl.float32), 0)
    of_row = d_factor / (largest_row * row_ties)
    of_column = d_factor / (largest_column * column_ties)
    in_columns = tl.where(column_sums == largest_column, of_column, 0.0)
    for row in range(rank * ROWS, M, team * ROWS):
        r = row + tl.arange(0, ROWS)
        inside = (r < M)[:, None] & (m < M)[None, :]
        is_largest = tl.load(room + r, mask=r < M, other=0.0) == largest_row
        grad = tl.load(dz + m[None, :] * M + r[:, None], mask=inside, other=0.0)
        total = tile_of(grad_a, r, m, M) + factor * grad + in_columns[None, :]
        total += tl.where(is_largest, of_row, 0.0)[:, None]
        total = total * (1.0 / SHRINK) * undo_w * undo_grad
        tl.store(grad_a + r[:, None] * M + m[None, :], total, mask=inside)
