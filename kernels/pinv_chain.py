"""The steps of the pseudo-inverse and their gradients on the device; fp32.

A team of programs computes one matrix after the other, from its first step to its last in one
launch. Each program takes every TEAM-th tile of a product, and all of them meet before a product
reads what another has written. A tile is computed in the same order whichever program takes it, so
results do not depend on the size of the team.

As in ``gimp_fast.ops.pinv`` the first steps build Z and correct themselves; the last two never form
it. Matrices are (M, M), narrow ones (M, D), all contiguous.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def meet(counter, arrived, TEAM: tl.constexpr):
    """Wait for the other programs of the team, and see what they wrote.

    ``counter`` counts the programs that have arrived, at this meeting and all before it.
    """
    tl.debug_barrier()
    if TEAM > 1:
        arrived += TEAM
        tl.atomic_add(counter, 1, sem="release", scope="gpu")
        while tl.atomic_add(counter, 0, sem="acquire", scope="gpu") < arrived:
            pass
        tl.debug_barrier()
    return arrived


@triton.jit
def place(tile, C: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    """Rows and columns of a tile of a matrix with C columns."""
    columns: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C
    r = (tile // columns) * BLOCK_R + tl.arange(0, BLOCK_R)
    c = (tile % columns) * BLOCK_C + tl.arange(0, BLOCK_C)
    return r, c


@triton.jit
def read(x, r, c, R: tl.constexpr, C: tl.constexpr):
    """A tile of a contiguous (R, C) matrix, zero outside."""
    inside = (r < R)[:, None] & (c < C)[None, :]
    return tl.load(x + r[:, None] * C + c[None, :], mask=inside, other=0.0)


@triton.jit
def write(x, r, c, value, R: tl.constexpr, C: tl.constexpr):
    inside = (r < R)[:, None] & (c < C)[None, :]
    tl.store(x + r[:, None] * C + c[None, :], value, mask=inside)


@triton.jit
def dot(
    total, a, b, r, c, R: tl.constexpr, C: tl.constexpr, K: tl.constexpr,
    A_R: tl.constexpr, A_K: tl.constexpr, B_K: tl.constexpr, B_C: tl.constexpr,
    BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of ``total`` + A·B, with A (R, K) and B (K, C) of these strides."""
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        a_tile = tl.load(
            a + r[:, None] * A_R + k[None, :] * A_K,
            mask=(r < R)[:, None] & (k < K)[None, :], other=0.0,
        )  # fmt: skip
        b_tile = tl.load(
            b + k[:, None] * B_K + c[None, :] * B_C,
            mask=(k < K)[:, None] & (c < C)[None, :], other=0.0,
        )  # fmt: skip
        total = tl.dot(a_tile, b_tile, total, input_precision=PRECISION)
    return total


@triton.jit
def product(
    a, b, r, c, M: tl.constexpr, C: tl.constexpr, K: tl.constexpr, BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of A·B, with A (M, K) and B (K, C)."""
    zero = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    return dot(zero, a, b, r, c, M, C, K, K, 1, C, 1, BLOCK_K, PRECISION)


@triton.jit
def product_nt(
    a, b, r, c, M: tl.constexpr, C: tl.constexpr, K: tl.constexpr, BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of A·Bᵀ, with A (M, K) and B (C, K)."""
    zero = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    return dot(zero, a, b, r, c, M, C, K, K, 1, 1, K, BLOCK_K, PRECISION)


@triton.jit
def product_tn(
    a, b, r, c, M: tl.constexpr, C: tl.constexpr, K: tl.constexpr, BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of Aᵀ·B, with A (K, M) and B (K, C)."""
    zero = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    return dot(zero, a, b, r, c, M, C, K, 1, M, C, 1, BLOCK_K, PRECISION)


@triton.jit
def start_factor(a, sums, rank, M: tl.constexpr, BLOCK_M: tl.constexpr):
    """1 / (largest row sum · largest column sum); one program keeps the sums, (2, M)."""
    ROWS: tl.constexpr = 16
    c = tl.arange(0, BLOCK_M)
    column_sums = tl.zeros([BLOCK_M], tl.float32)
    largest = tl.zeros([ROWS], tl.float32)
    for start in range(0, M, ROWS):
        r = start + tl.arange(0, ROWS)
        tile = read(a, r, c, M, M)
        column_sums += tl.sum(tile, 0)
        row_sums = tl.sum(tile, 1)
        largest = tl.maximum(largest, row_sums)
        tl.store(sums + r, row_sums, mask=(r < M) & (rank == 0))
    tl.store(sums + M + c, column_sums, mask=(c < M) & (rank == 0))
    return 1.0 / (tl.max(largest, 0) * tl.max(column_sums, 0))


@triton.jit
def run_chain(
    a, w, sums, room, counter, arrived, rank,
    M: tl.constexpr, D: tl.constexpr, CLASSIC: tl.constexpr, THIN: tl.constexpr,
    RECORD: tl.constexpr, TEAM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """All steps on A, and the thin ones on w.

    The room holds Z before each classic step and after the last, then the other matrices. Unless
    RECORD is set, each classic step takes the place of the one before.
    """
    SQUARE: tl.constexpr = M * M
    NARROW: tl.constexpr = M * D
    TILES: tl.constexpr = tl.cdiv(M, BLOCK_R) * tl.cdiv(M, BLOCK_C)
    NARROW_TILES: tl.constexpr = tl.cdiv(M, BLOCK_R) * tl.cdiv(D, BLOCK_C)
    KEPT: tl.constexpr = CLASSIC if RECORD and CLASSIC > 0 else 1
    xs = room + (KEPT + 1) * SQUARE  # x, t and r of each classic step
    thin = xs + 3 * KEPT * SQUARE  # x, s and t of the first thin step, x of the last
    narrow = thin + 4 * SQUARE  # t₁, t₂ and the result of each thin step

    factor = start_factor(a, sums, rank, M, BLOCK_M)
    for tile in range(rank, TILES, TEAM):
        r, c = place(tile, M, BLOCK_R, BLOCK_C)
        write(room, r, c, tl.trans(read(a, c, r, M, M)) * factor, M, M)
    arrived = meet(counter, arrived, TEAM)

    for step in range(CLASSIC):
        if RECORD:
            z = room + step * SQUARE
            next_z = z + SQUARE
            x = xs + 3 * step * SQUARE
        else:
            z = room + (step % 2) * SQUARE
            next_z = room + (1 - step % 2) * SQUARE
            x = xs
        t = x + SQUARE
        root = t + SQUARE
        for tile in range(rank, TILES, TEAM):
            r, c = place(tile, M, BLOCK_R, BLOCK_C)
            write(x, r, c, product(a, z, r, c, M, M, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION), M, M)
        arrived = meet(counter, arrived, TEAM)
        for tile in range(rank, TILES, TEAM):
            r, c = place(tile, M, BLOCK_R, BLOCK_C)
            xx = product(x, x, r, c, M, M, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
            write(t, r, c, 7.0 * read(x, r, c, M, M) - xx, M, M)
        arrived = meet(counter, arrived, TEAM)
        for tile in range(rank, TILES, TEAM):
            r, c = place(tile, M, BLOCK_R, BLOCK_C)
            xt = product(x, t, r, c, M, M, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
            write(root, r, c, 15.0 * read(x, r, c, M, M) - xt, M, M)
        arrived = meet(counter, arrived, TEAM)
        for tile in range(rank, TILES, TEAM):
            r, c = place(tile, M, BLOCK_R, BLOCK_C)
            zr = product(z, root, r, c, M, M, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
            write(next_z, r, c, 3.25 * read(z, r, c, M, M) - 0.25 * zr, M, M)
        arrived = meet(counter, arrived, TEAM)

    if THIN > 0:
        z = last_z(room, M, CLASSIC, RECORD)
        for tile in range(rank, TILES, TEAM):
            r, c = place(tile, M, BLOCK_R, BLOCK_C)
            az = product(a, z, r, c, M, M, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
            write(thin, r, c, az, M, M)
        arrived = meet(counter, arrived, TEAM)
    if THIN > 1:
        s = thin + SQUARE
        t = s + SQUARE
        for tile in range(rank, TILES, TEAM):
            r, c = place(tile, M, BLOCK_R, BLOCK_C)
            xx = product(thin, thin, r, c, M, M, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
            write(s, r, c, xx, M, M)
            write(t, r, c, 7.0 * read(thin, r, c, M, M) - xx, M, M)
        arrived = meet(counter, arrived, TEAM)
        for tile in range(rank, TILES, TEAM):
            r, c = place(tile, M, BLOCK_R, BLOCK_C)
            st = product(s, t, r, c, M, M, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
            x = 3.25 * read(thin, r, c, M, M) - 3.75 * read(s, r, c, M, M)
            write(t + SQUARE, r, c, x + 0.25 * st, M, M)
        arrived = meet(counter, arrived, TEAM)

    u = w
    for back in tl.static_range(THIN):
        x = thin + (3 * (THIN - 1 - back)) * SQUARE
        t1 = narrow + 3 * (THIN - 1 - back) * NARROW
        t2 = t1 + NARROW
        for tile in range(rank, NARROW_TILES, TEAM):
            r, c = place(tile, D, BLOCK_R, BLOCK_C)
            xu = product(x, u, r, c, M, D, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
            write(t1, r, c, 7.0 * read(u, r, c, M, D) - xu, M, D)
        arrived = meet(counter, arrived, TEAM)
        for tile in range(rank, NARROW_TILES, TEAM):
            r, c = place(tile, D, BLOCK_R, BLOCK_C)
            xt = product(x, t1, r, c, M, D, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
            write(t2, r, c, 15.0 * read(u, r, c, M, D) - xt, M, D)
        arrived = meet(counter, arrived, TEAM)
        for tile in range(rank, NARROW_TILES, TEAM):
            r, c = place(tile, D, BLOCK_R, BLOCK_C)
            xt = product(x, t2, r, c, M, D, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
            write(t2 + NARROW, r, c, 3.25 * read(u, r, c, M, D) - 0.25 * xt, M, D)
        arrived = meet(counter, arrived, TEAM)
        u = t2 + NARROW
    return arrived


@triton.jit
def last_z(room, M: tl.constexpr, CLASSIC: tl.constexpr, RECORD: tl.constexpr):
    """Z after the classic steps."""
    if RECORD:
        return room + CLASSIC * M * M
    else:
        return room + (CLASSIC % 2) * M * M
