"""Where the pseudo-inverse starts, Z₀ = Aᵀ / (largest row sum · largest column sum); its gradient.

Each program of a team takes every team-th block of rows; what all need of all rows they add up in
one order after a meeting.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gimp_fast.kernels.pinv_products import meet
from gimp_fast.kernels.pinv_range import SHRINK
from gimp_fast.kernels.pinv_room import ROWS, operand, place


@triton.jit
def _tile(a, r, c, M: tl.constexpr):
    """Elements of a contiguous (M, M) matrix, zero outside."""
    inside = (r < M)[:, None] & (c < M)[None, :]
    return tl.load(a + r[:, None] * M + c[None, :], mask=inside, other=0.0)


@triton.jit
def _turned(a, r, c, M: tl.constexpr):
    """The same of its transpose."""
    inside = (r < M)[:, None] & (c < M)[None, :]
    return tl.load(a + c[None, :] * M + r[:, None], mask=inside, other=0.0)


@triton.jit(noinline=True)
def start(
    a, room, counter, arrived, rank, team, BLOCK_M: tl.constexpr, STEPS: tl.constexpr,
    SHAPE: tl.constexpr,
):  # fmt: skip
    """Z₀, and the sums of rows and of columns (2, M)."""
    M: tl.constexpr = SHAPE[0]
    BLOCKS: tl.constexpr = (M + ROWS - 1) // ROWS
    sums = room + place("sums", STEPS, SHAPE)
    parts = room + place("column sums", STEPS, SHAPE)
    c = tl.arange(0, BLOCK_M)
    for block in range(rank, BLOCKS, team):
        r = block * ROWS + tl.arange(0, ROWS)
        tile = _tile(a, r, c, M)
        tl.store(sums + r, tl.sum(tile, 1), mask=r < M)
        tl.store(parts + block * M + c, tl.sum(tile, 0), mask=c < M)
    arrived = meet(counter, arrived, team)
    column_sums = tl.zeros([BLOCK_M], tl.float32)
    for block in range(0, BLOCKS, ROWS):
        b = block + tl.arange(0, ROWS)
        inside = (b < BLOCKS)[:, None] & (c < M)[None, :]
        part = tl.load(parts + b[:, None] * M + c[None, :], mask=inside, other=0.0)
        column_sums += tl.sum(part, 0)
    tl.store(sums + M + c, column_sums, mask=(c < M) & (rank == 0))
    row_sums = tl.load(sums + c, mask=c < M, other=0.0)
    factor = 1.0 / (tl.max(row_sums, 0) * tl.max(column_sums, 0))
    z = room + place("z", STEPS, SHAPE)
    for block in range(rank, BLOCKS, team):
        r = block * ROWS + tl.arange(0, ROWS)
        inside = (r < M)[:, None] & (c < M)[None, :]
        tile = _tile(a, r, c, M)
        turned = c[None, :] * M + r[:, None]
        tl.store(z + turned, tile * factor, mask=inside)
        if SHAPE[5] == "fp16":
            tl.store(operand(z, M * M, SHAPE) + turned, tile * factor, mask=inside)
            a_copy = operand(room + place("a", STEPS, SHAPE), M * M, SHAPE)
            tl.store(a_copy + r[:, None] * M + c[None, :], tile, mask=inside)
    return meet(counter, arrived, team)


@triton.jit(noinline=True)
def add_grad_of_start(
    a, room, grad_a, undo_w, undo_grad, counter, arrived, rank, team, BLOCK_M: tl.constexpr,
    STEPS: tl.constexpr, SHAPE: tl.constexpr,
):  # fmt: skip
    """Add the gradient of A through Z₀ to ``grad_a``, and undo the scaling.

    Rows, or columns, that share the largest sum share its gradient evenly.
    """
    M: tl.constexpr = SHAPE[0]
    BLOCKS: tl.constexpr = (M + ROWS - 1) // ROWS
    m = tl.arange(0, BLOCK_M)
    sums = room + place("sums", STEPS, SHAPE)
    parts = room + place("inner", STEPS, SHAPE)
    dz = room + place("dz", STEPS, SHAPE)
    for block in range(rank, BLOCKS, team):
        r = block * ROWS + tl.arange(0, ROWS)
        inner = tl.sum(_tile(a, r, m, M) * _turned(dz, r, m, M), 1)
        tl.store(parts + r, inner, mask=r < M)
    arrived = meet(counter, arrived, team)
    row_sums = tl.load(sums + m, mask=m < M, other=0.0)
    column_sums = tl.load(sums + M + m, mask=m < M, other=0.0)
    largest_row = tl.max(row_sums, 0)
    largest_column = tl.max(column_sums, 0)
    factor = 1.0 / (largest_row * largest_column)
    d_factor = -tl.sum(tl.load(parts + m, mask=m < M, other=0.0), 0) * factor
    row_ties = tl.sum((row_sums == largest_row).to(tl.float32), 0)
    column_ties = tl.sum((column_sums == largest_column).to(tl.float32), 0)
    of_row = d_factor / (largest_row * row_ties)
    of_column = d_factor / (largest_column * column_ties)
    in_columns = tl.where(column_sums == largest_column, of_column, 0.0)
    for block in range(rank, BLOCKS, team):
        r = block * ROWS + tl.arange(0, ROWS)
        is_largest = tl.load(sums + r, mask=r < M, other=0.0) == largest_row
        total = _tile(grad_a, r, m, M) + factor * _turned(dz, r, m, M) + in_columns[None, :]
        total += tl.where(is_largest, of_row, 0.0)[:, None]
        total = total * (1.0 / SHRINK) * undo_w * undo_grad
        inside = (r < M)[:, None] & (m < M)[None, :]
        tl.store(grad_a + r[:, None] * M + m[None, :], total, mask=inside)
    return meet(counter, arrived, team)
