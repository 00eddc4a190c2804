"""The steps of the pseudo-inverse on the device.

As in ``gimp_fast.ops.pinv`` the first steps build Z and correct themselves; the last two never form
it, and are applied to W. A team meets between two products: ``gimp_fast.kernels.pinv_products``.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gimp_fast.kernels.pinv_products import (
    meet,
    product,
    product_and_sum,
    product_plus,
    product_plus_two,
)
from gimp_fast.kernels.pinv_room import (
    BOTH,
    OPERAND,
    last_z,
    place,
    stride,
    thin_slots,
    thin_x,
)
from gimp_fast.kernels.pinv_start import start


@triton.jit
def read_a(a, room, STEPS: tl.constexpr, SHAPE: tl.constexpr):
    """A as products read it."""
    at = a
    if SHAPE[5] == "fp16":
        at = room + place("a", STEPS, SHAPE)
    return at


@triton.jit
def classic_step(room, step, STEPS: tl.constexpr, SHAPE: tl.constexpr):
    """Z, X, T and R of a classic step, and the next Z."""
    zs = room + place("z", STEPS, SHAPE)
    x = room + place("x", STEPS, SHAPE)
    t = room + place("t", STEPS, SHAPE)
    root = room + place("r", STEPS, SHAPE)
    if STEPS[2]:
        z = zs + step * stride("z", STEPS, SHAPE)
        next_z = z + stride("z", STEPS, SHAPE)
        x += step * stride("x", STEPS, SHAPE)
        t += step * stride("t", STEPS, SHAPE)
        root += step * stride("r", STEPS, SHAPE)
    else:
        z = zs + (step % 2) * stride("z", STEPS, SHAPE)
        next_z = zs + (1 - step % 2) * stride("z", STEPS, SHAPE)
    return z, x, t, root, next_z


@triton.jit(noinline=True)
def run_chain(
    a, room, counter, arrived, rank, team, BLOCK_M: tl.constexpr, STEPS: tl.constexpr,
    SHAPE: tl.constexpr,
):  # fmt: skip
    """All steps on A, and the thin ones on the scaled W."""
    M: tl.constexpr = SHAPE[0]
    D: tl.constexpr = SHAPE[1]
    THIN: tl.constexpr = STEPS[1]
    arrived = start(a, room, counter, arrived, rank, team, BLOCK_M, STEPS, SHAPE)
    a = read_a(a, room, STEPS, SHAPE)
    for step in range(STEPS[0]):
        z, x, t, root, next_z = classic_step(room, step, STEPS, SHAPE)
        product(x, 1.0, a, z, rank, team, BOTH, "nn", M, M, M, SHAPE)
        arrived = meet(counter, arrived, team)
        product_plus(t, -1.0, x, x, 7.0, x, rank, team, OPERAND, "nn", M, M, M, SHAPE)
        arrived = meet(counter, arrived, team)
        product_plus(root, -1.0, x, t, 15.0, x, rank, team, OPERAND, "nn", M, M, M, SHAPE)
        arrived = meet(counter, arrived, team)
        product_plus(next_z, -0.25, z, root, 3.25, z, rank, team, BOTH, "nn", M, M, M, SHAPE)
        arrived = meet(counter, arrived, team)

    first = thin_x(room, 0, STEPS, SHAPE)
    if THIN > 0:
        z = last_z(room, STEPS, SHAPE)
        product(first, 1.0, a, z, rank, team, BOTH, "nn", M, M, M, SHAPE)
        arrived = meet(counter, arrived, team)
    if THIN > 1:
        s = room + place("thin s", STEPS, SHAPE)
        t = room + place("thin t", STEPS, SHAPE)
        product_and_sum(
            s, 1.0, first, first, BOTH, t, -1.0, 7.0, first, OPERAND, rank, team,
            "nn", M, M, M, SHAPE,
        )  # fmt: skip
        arrived = meet(counter, arrived, team)
        product_plus_two(
            thin_x(room, 1, STEPS, SHAPE), 0.25, s, t, 3.25, first, -3.75, s, rank, team, OPERAND,
            "nn", M, M, M, SHAPE,
        )  # fmt: skip
        arrived = meet(counter, arrived, team)

    u = room + place("w", STEPS, SHAPE)
    for back in tl.static_range(THIN):
        x = thin_x(room, THIN - 1 - back, STEPS, SHAPE)
        t1, t2, result = thin_slots(room, THIN - 1 - back, STEPS, SHAPE)
        product_plus(t1, -1.0, x, u, 7.0, u, rank, team, OPERAND, "nn", M, D, M, SHAPE)
        arrived = meet(counter, arrived, team)
        product_plus(t2, -1.0, x, t1, 15.0, u, rank, team, OPERAND, "nn", M, D, M, SHAPE)
        arrived = meet(counter, arrived, team)
        product_plus(result, -0.25, x, t2, 3.25, u, rank, team, BOTH, "nn", M, D, M, SHAPE)
        arrived = meet(counter, arrived, team)
        u = result
    return arrived
