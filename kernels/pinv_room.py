"""Where a team keeps the matrices of the chain and of its gradients: its room.

With the precision "fp16", products read copies in fp16. The copy of a matrix lies behind its values
in fp32. What only products read has no values, and its place is where they would begin.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

THIN_STEPS = 2
# Of a block of rows, which one program adds up.
ROWS = tl.constexpr(16)
# What is written of a matrix: values, the copy that products read, or both.
VALUES = tl.constexpr(1)
OPERAND = tl.constexpr(2)
BOTH = tl.constexpr(3)


class Shape(NamedTuple):
    """Sizes of matrices (M, M) and (M, D), and of tiles; precision of products."""

    m: int
    d: int
    block_r: int
    block_c: int
    block_k: int
    precision: str


class Steps(NamedTuple):
    """Steps that build Z, and steps that are applied to W; whether gradients follow."""

    classic: int
    thin: int
    keeps: bool


def steps_of(iterations: int, keeps: bool) -> Steps:
    thin = min(iterations, THIN_STEPS)
    return Steps(iterations - thin, thin, keeps)


# Functions of constants get steps and shape as tuples.
@triton.constexpr_function
def _plan(steps, shape):
    """Name, elements, number, and what is kept of the matrices, in order."""
    steps, shape = Steps(*steps), Shape(*shape)
    square, narrow = shape.m**2, shape.m * shape.d
    values, operand, both = VALUES.value, OPERAND.value, BOTH.value
    kept = max(steps.classic, 1) if steps.keeps else 1
    plan = [
        ("sums", 2 * shape.m, 1, values),  # of rows and of columns
        ("column sums", triton.cdiv(shape.m, ROWS.value) * shape.m, 1, values),  # of blocks of rows
        ("a", square, int(shape.precision == "fp16"), operand),
        ("z", square, kept + 1, both),
        ("x", square, kept, both),  # of the classic steps, as t and r
        ("t", square, kept, operand),
        ("r", square, kept, operand),
        ("thin x", square, 1, both),
        ("thin s", square, 1, both),
        ("thin t", square, 1, operand),
        ("last x", square, 1, operand),
        ("t1", narrow, steps.thin, operand),  # of the thin steps, as t2 and u
        ("t2", narrow, steps.thin, operand),
        ("u", narrow, steps.thin, both),
        ("w", narrow, 1, both),
    ]
    if steps.keeps:
        plan += [
            ("dy", narrow, 1, both),
            ("dz", square, 1, both),
            ("part of dz", square, 1, values),
            ("dr", square, 1, both),
            ("dt", square, 1, both),
            ("dx", square, 1, both),
            ("own dx", square, steps.thin, both),
            ("du", narrow, 2, both),
            ("du x", narrow, 1, operand),
            ("du x x", narrow, 1, both),
            ("part of du", narrow, 1, values),
            ("inner", shape.m, 1, values),  # products of the rows of A and of dZᵀ
        ]
    return plan


@triton.constexpr_function
def padded(elements):
    """Copies begin at multiples of 16 bytes."""
    return -(-elements // 8) * 8


@triton.constexpr_function
def _length(elements, kept, shape):
    """Floats that a matrix takes."""
    size = padded(elements)
    if Shape(*shape).precision != "fp16":
        return size
    return size * (kept & 1) + size // 2 * (kept >> 1)


def room_size(steps: Steps, shape: Shape) -> int:
    """Floats of a room."""
    lengths = (n * _length(size, kept, shape) for _, size, n, kept in _plan(steps, shape))
    return triton.cdiv(sum(lengths), 32) * 32


@triton.constexpr_function
def place(name, steps, shape):
    """Where the first matrix of a name begins."""
    start = 0
    for other, size, count, kept in _plan(steps, shape):
        if other == name:
            only_read = Shape(*shape).precision == "fp16" and kept == OPERAND.value
            return start - padded(size) if only_read else start
        start += count * _length(size, kept, shape)
    raise KeyError(name)


@triton.constexpr_function
def stride(name, steps, shape):
    """From one matrix of a name to the next."""
    lengths = {other: _length(size, kept, shape) for other, size, _, kept in _plan(steps, shape)}
    return lengths[name]


@triton.jit
def operand(x, SIZE: tl.constexpr, SHAPE: tl.constexpr):
    """What products read of a matrix of so many elements."""
    at = x
    if SHAPE[5] == "fp16":
        at = (x + padded(SIZE)).to(tl.pointer_type(tl.float16), bitcast=True)
    return at


@triton.jit
def last_z(room, STEPS: tl.constexpr, SHAPE: tl.constexpr):
    """Z after the classic steps."""
    last: tl.constexpr = STEPS[0] if STEPS[2] else STEPS[0] % 2
    return room + place("z", STEPS, SHAPE) + last * stride("z", STEPS, SHAPE)


@triton.jit
def thin_x(room, step: tl.constexpr, STEPS: tl.constexpr, SHAPE: tl.constexpr):
    """X of a thin step."""
    x = room + place("thin x", STEPS, SHAPE)
    if step > 0:
        x = room + place("last x", STEPS, SHAPE)
    return x


@triton.jit
def thin_slots(room, step: tl.constexpr, STEPS: tl.constexpr, SHAPE: tl.constexpr):
    """t₁, t₂ and the result of a thin step."""
    t1 = room + place("t1", STEPS, SHAPE) + step * stride("t1", STEPS, SHAPE)
    t2 = room + place("t2", STEPS, SHAPE) + step * stride("t2", STEPS, SHAPE)
    return t1, t2, room + place("u", STEPS, SHAPE) + step * stride("u", STEPS, SHAPE)


@triton.jit
def applied(room, STEPS: tl.constexpr, SHAPE: tl.constexpr):
    """What Z is multiplied by: the scaled W after the thin steps."""
    u = room + place("w", STEPS, SHAPE)
    if STEPS[1] > 0:
        u = room + place("u", STEPS, SHAPE)
    return u
