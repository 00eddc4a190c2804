"""Gradients of the pseudo-inverse's steps on the device; see ``gimp_fast.kernels.pinv_chain``."""

from __future__ import annotations

import triton
import triton.language as tl

from gimp_fast.kernels.pinv_chain import classic_step, read_a
from gimp_fast.kernels.pinv_products import (
    meet,
    product,
    product_and_sum,
    product_plus,
    product_plus_two,
)
from gimp_fast.kernels.pinv_range import SHRINK
from gimp_fast.kernels.pinv_room import (
    BOTH,
    OPERAND,
    VALUES,
    applied,
    last_z,
    place,
    stride,
    thin_slots,
    thin_x,
)
from gimp_fast.kernels.pinv_start import add_grad_of_start


@triton.jit(noinline=True)
def grads_of_chain(
    a, grad_a, grad_w, undo_w, undo_grad, room, counter, arrived, rank, team,
    BLOCK_M: tl.constexpr, STEPS: tl.constexpr, SHAPE: tl.constexpr,
):  # fmt: skip
    """Gradients of A and W from the scaled gradient of Z W.

    The room holds that, and what ``run_chain`` kept. ``undo_w`` and ``undo_grad`` undo the scaling.
    """
    M: tl.constexpr = SHAPE[0]
    D: tl.constexpr = SHAPE[1]
    THIN: tl.constexpr = STEPS[1]
    a_read = read_a(a, room, STEPS, SHAPE)
    z = last_z(room, STEPS, SHAPE)
    dy = room + place("dy", STEPS, SHAPE)
    dz = room + place("dz", STEPS, SHAPE)
    du = room + place("du", STEPS, SHAPE)
    u = applied(room, STEPS, SHAPE)
    product(dz, SHRINK, dy, u, rank, team, BOTH, "nt", M, M, D, SHAPE)
    if THIN == 0:
        product(grad_w, undo_grad, z, dy, rank, team, VALUES, "tn", M, D, M, SHAPE)
        _clear(grad_a, rank, team, SHAPE)
    else:
        product(du, 0.25, z, dy, rank, team, BOTH, "tn", M, D, M, SHAPE)
    arrived = meet(counter, arrived, team)

    for step in tl.static_range(THIN):
        arrived = _grads_of_apply(
            room, grad_w, undo_grad, counter, arrived, rank, team, step, STEPS, SHAPE
        )
    if THIN > 0:
        total = room + place("own dx", STEPS, SHAPE)
        if THIN > 1:
            arrived = _grads_of_thin_step(room, counter, arrived, rank, team, STEPS, SHAPE)
            total = room + place("dx", STEPS, SHAPE)
        product(grad_a, 1.0, total, z, rank, team, VALUES, "nt", M, M, M, SHAPE)
        product_plus(dz, 1.0, a_read, total, 1.0, dz, rank, team, BOTH, "tn", M, M, M, SHAPE)
        arrived = meet(counter, arrived, team)

    for back in range(STEPS[0]):
        arrived = _grads_of_classic_step(
            a_read, room, STEPS[0] - 1 - back, grad_a, counter, arrived, rank, team, STEPS, SHAPE
        )
    return add_grad_of_start(
        a, room, grad_a, undo_w, undo_grad, counter, arrived, rank, team, BLOCK_M, STEPS, SHAPE
    )


@triton.jit(noinline=True)
def _grads_of_apply(
    room, grad_w, undo_grad, counter, arrived, rank, team, STEP: tl.constexpr,
    STEPS: tl.constexpr, SHAPE: tl.constexpr,
):  # fmt: skip
    """Gradient of what a thin step was applied to, and that of X by the step's own products.

    A quarter of the gradient is kept for the next step; that of W itself is written in full.
    """
    M: tl.constexpr = SHAPE[0]
    D: tl.constexpr = SHAPE[1]
    x = thin_x(room, STEP, STEPS, SHAPE)
    t1, t2, _ = thin_slots(room, STEP, STEPS, SHAPE)
    one = room + place("du", STEPS, SHAPE) + STEP * stride("du", STEPS, SHAPE)
    two = room + place("du x", STEPS, SHAPE)
    three = room + place("du x x", STEPS, SHAPE)
    rest = room + place("part of du", STEPS, SHAPE)
    own = room + place("own dx", STEPS, SHAPE) + STEP * stride("own dx", STEPS, SHAPE)
    LAST: tl.constexpr = STEPS[1] == STEP + 1
    if LAST:
        given = room + place("w", STEPS, SHAPE)
        result = grad_w
        share = undo_grad
    else:
        given = room + place("u", STEPS, SHAPE) + (STEP + 1) * stride("u", STEPS, SHAPE)
        result = one + stride("du", STEPS, SHAPE)
        share = tl.full([], 0.25, tl.float32)
    kept: tl.constexpr = VALUES if LAST else BOTH
    product_and_sum(
        two, -1.0, x, one, OPERAND, rest, -15.0, 13.0, one, VALUES, rank, team,
        "tn", M, D, M, SHAPE,
    )  # fmt: skip
    arrived = meet(counter, arrived, team)
    product(three, -1.0, x, two, rank, team, BOTH, "tn", M, D, M, SHAPE)
    arrived = meet(counter, arrived, team)
    product_plus_two(
        result, -share, x, three, 7.0 * share, three, share, rest, rank, team, kept,
        "tn", M, D, M, SHAPE,
    )  # fmt: skip
    product(own, -SHRINK, one, t2, rank, team, VALUES, "nt", M, M, D, SHAPE)
    product_plus(own, -SHRINK, two, t1, 1.0, own, rank, team, VALUES, "nt", M, M, D, SHAPE)
    product_plus(own, -SHRINK, three, given, 1.0, own, rank, team, BOTH, "nt", M, M, D, SHAPE)
    return meet(counter, arrived, team)


@triton.jit(noinline=True)
def _grads_of_thin_step(
    room, counter, arrived, rank, team, STEPS: tl.constexpr, SHAPE: tl.constexpr
):
    """Gradient of the first thin X, from that of the next one and from X's own products."""
    M: tl.constexpr = SHAPE[0]
    x = thin_x(room, 0, STEPS, SHAPE)
    s = room + place("thin s", STEPS, SHAPE)
    t = room + place("thin t", STEPS, SHAPE)
    own = room + place("own dx", STEPS, SHAPE)
    total = own + stride("own dx", STEPS, SHAPE)
    ds = room + place("dr", STEPS, SHAPE)
    dt = room + place("dt", STEPS, SHAPE)
    dx = room + place("dx", STEPS, SHAPE)
    product(dt, 0.25, s, total, rank, team, VALUES, "tn", M, M, M, SHAPE)
    arrived = meet(counter, arrived, team)
    product_plus_two(
        ds, 0.25, total, t, -3.75, total, -1.0, dt, rank, team, OPERAND, "nt", M, M, M, SHAPE
    )
    arrived = meet(counter, arrived, team)
    product_plus_two(dx, 1.0, ds, x, 3.25, total, 7.0, dt, rank, team, VALUES, "nt", M, M, M, SHAPE)
    product_plus_two(dx, 1.0, x, ds, 1.0, dx, 1.0, own, rank, team, OPERAND, "tn", M, M, M, SHAPE)
    return meet(counter, arrived, team)


@triton.jit(noinline=True)
def _grads_of_classic_step(
    a, room, step, grad_a, counter, arrived, rank, team, STEPS: tl.constexpr, SHAPE: tl.constexpr
):
    """Replace the gradient of the next Z by that of Z; A's is added in place."""
    M: tl.constexpr = SHAPE[0]
    z, x, t, root, _ = classic_step(room, step, STEPS, SHAPE)
    dz = room + place("dz", STEPS, SHAPE)
    dr = room + place("dr", STEPS, SHAPE)
    dt = room + place("dt", STEPS, SHAPE)
    dx = room + place("dx", STEPS, SHAPE)
    kept = room + place("part of dz", STEPS, SHAPE)
    product(dr, -0.25, z, dz, rank, team, BOTH, "tn", M, M, M, SHAPE)
    product_plus(kept, -0.25, dz, root, 3.25, dz, rank, team, VALUES, "nt", M, M, M, SHAPE)
    arrived = meet(counter, arrived, team)
    product(dt, -1.0, x, dr, rank, team, BOTH, "tn", M, M, M, SHAPE)
    arrived = meet(counter, arrived, team)
    product_plus_two(dx, -1.0, dr, t, 15.0, dr, 7.0, dt, rank, team, VALUES, "nt", M, M, M, SHAPE)
    product_plus(dx, -1.0, dt, x, 1.0, dx, rank, team, VALUES, "nt", M, M, M, SHAPE)
    product_plus(dx, -1.0, x, dt, 1.0, dx, rank, team, OPERAND, "tn", M, M, M, SHAPE)
    arrived = meet(counter, arrived, team)
    product_plus(grad_a, 1.0, dx, z, 1.0, grad_a, rank, team, VALUES, "nt", M, M, M, SHAPE)
    product_plus(dz, 1.0, a, dx, 1.0, kept, rank, team, BOTH, "tn", M, M, M, SHAPE)
    return meet(counter, arrived, team)


@triton.jit
def _clear(x, rank, team, SHAPE: tl.constexpr):
    SIZE: tl.constexpr = SHAPE[0] * SHAPE[0]
    for start in range(rank * 1024, SIZE, team * 1024):
        at = start + tl.arange(0, 1024)
        tl.store(x + at, tl.zeros([1024], tl.float32), mask=at < SIZE)
