"""Gradients of the pseudo-inverse's steps on the device: see ``gimp_fast.kernels.pinv_chain``."""

from __future__ import annotations

import triton
import triton.language as tl

from gimp_fast.kernels.pinv_chain import (
    last_z,
    meet,
    place,
    product_nt,
    product_tn,
    read,
    write,
)


@triton.jit
def grads_of_chain(
    grad_y, a, w, grad_a, grad_w, sums, room, counter, arrived, rank,
    M: tl.constexpr, D: tl.constexpr, CLASSIC: tl.constexpr, THIN: tl.constexpr,
    TEAM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of A and w from that of Z w. The room holds what ``run_chain`` recorded."""
    SQUARE: tl.constexpr = M * M
    NARROW: tl.constexpr = M * D
    TILES: tl.constexpr = tl.cdiv(M, BLOCK_R) * tl.cdiv(M, BLOCK_C)
    NARROW_TILES: tl.constexpr = tl.cdiv(M, BLOCK_R) * tl.cdiv(D, BLOCK_C)
    KEPT: tl.constexpr = CLASSIC if CLASSIC > 0 else 1
    THIN_SLOTS: tl.constexpr = THIN if THIN > 0 else 1
    z = last_z(room, M, CLASSIC, True)
    thin = room + (4 * KEPT + 1) * SQUARE
    narrow = thin + 4 * SQUARE
    dz = narrow + 3 * THIN_SLOTS * NARROW
    dx = dz + 4 * SQUARE
    first = dx + 3 * SQUARE  # gradients of each thin step's products follow dx
    u = w
    of_u = grad_w
    PART: tl.constexpr = 1.0 if THIN == 0 else 0.25
    if THIN > 0:
        u = narrow + 2 * NARROW
        of_u = first

    for tile in range(rank, TILES, TEAM):
        r, c = place(tile, M, BLOCK_R, BLOCK_C)
        yu = product_nt(grad_y, u, r, c, M, M, D, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
        write(dz, r, c, yu, M, M)
        write(grad_a, r, c, tl.zeros([BLOCK_R, BLOCK_C], tl.float32), M, M)
    for tile in range(rank, NARROW_TILES, TEAM):
        r, c = place(tile, D, BLOCK_R, BLOCK_C)
        zy = product_tn(z, grad_y, r, c, M, D, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
        write(of_u, r, c, PART * zy, M, D)
    arrived = meet(counter, arrived, TEAM)

    for step in tl.static_range(THIN):
        given = w
        result = grad_w
        if step < THIN - 1:
            given = narrow + (3 * step + 5) * NARROW
            result = first + NARROW
        arrived = _grads_of_apply(
            thin + 3 * step * SQUARE, narrow + 3 * step * NARROW, given, first + step * NARROW,
            first + 2 * NARROW, result, dx + (1 + step) * SQUARE, counter, arrived, rank,
            M, D, 1.0 if step == THIN - 1 else 0.25, TEAM, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION,
        )  # fmt: skip
    if THIN > 0:
        if THIN > 1:
            arrived = _grads_of_thin_step(
                thin, dx + 2 * SQUARE, dx + SQUARE, dx, dz + SQUARE, counter, arrived, rank,
                M, TEAM, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION,
            )  # fmt: skip
        else:
            dx += SQUARE
        for tile in range(rank, TILES, TEAM):
            r, c = place(tile, M, BLOCK_R, BLOCK_C)
            xz = product_nt(dx, z, r, c, M, M, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
            write(grad_a, r, c, xz, M, M)
            ax = product_tn(a, dx, r, c, M, M, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
            write(dz, r, c, read(dz, r, c, M, M) + ax, M, M)
        arrived = meet(counter, arrived, TEAM)

    dx = dz + 4 * SQUARE
    for back in range(CLASSIC):
        step = CLASSIC - 1 - back
        arrived = _grads_of_classic_step(
            a, room + step * SQUARE, room + (KEPT + 1 + 3 * step) * SQUARE, dz, dz + SQUARE, dx,
            grad_a, counter, arrived, rank, M, TEAM, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION,
        )  # fmt: skip
    _grads_of_start(a, sums, dz, grad_a, rank, M, TEAM, BLOCK_M, BLOCK_R, BLOCK_C)
    return arrived


@triton.jit
def _grads_of_apply(
    x, slots, given, one, scratch, result, own, counter, arrived, rank,
    M: tl.constexpr, D: tl.constexpr, SHARE: tl.constexpr, TEAM: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One thin step on ``given``: from a quarter of its result's gradient, that of ``given`` into
    ``result``, a quarter of it unless SHARE is 1, and that of X into ``own``.
    """
    NARROW: tl.constexpr = M * D
    TILES: tl.constexpr = tl.cdiv(M, BLOCK_R) * tl.cdiv(M, BLOCK_C)
    NARROW_TILES: tl.constexpr = tl.cdiv(M, BLOCK_R) * tl.cdiv(D, BLOCK_C)
    t1 = slots
    t2 = slots + NARROW
    two = scratch
    three = scratch + NARROW
    rest = scratch + 2 * NARROW
    for tile in range(rank, NARROW_TILES, TEAM):
        r, c = place(tile, D, BLOCK_R, BLOCK_C)
        xg = product_tn(x, one, r, c, M, D, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
        write(two, r, c, -xg, M, D)
        write(rest, r, c, 13.0 * read(one, r, c, M, D) - 15.0 * xg, M, D)
    arrived = meet(counter, arrived, TEAM)
    for tile in range(rank, NARROW_TILES, TEAM):
        r, c = place(tile, D, BLOCK_R, BLOCK_C)
        xg = product_tn(x, two, r, c, M, D, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
        write(three, r, c, -xg, M, D)
    arrived = meet(counter, arrived, TEAM)
    for tile in range(rank, NARROW_TILES, TEAM):
        r, c = place(tile, D, BLOCK_R, BLOCK_C)
        xg = product_tn(x, three, r, c, M, D, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
        total = 7.0 * read(three, r, c, M, D) + read(rest, r, c, M, D) - xg
        write(result, r, c, SHARE * total, M, D)
    for tile in range(rank, TILES, TEAM):
        r, c = place(tile, M, BLOCK_R, BLOCK_C)
        total = product_nt(one, t2, r, c, M, M, D, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
        total += product_nt(two, t1, r, c, M, M, D, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
        total += product_nt(three, given, r, c, M, M, D, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
        write(own, r, c, -total, M, M)
    return meet(counter, arrived, TEAM)


@triton.jit
def _grads_of_thin_step(
    thin, total, own, dx, scratch, counter, arrived, rank, M: tl.constexpr, TEAM: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of X into ``dx`` from that of the next X, ``total``, and from X's own products."""
    SQUARE: tl.constexpr = M * M
    TILES: tl.constexpr = tl.cdiv(M, BLOCK_R) * tl.cdiv(M, BLOCK_C)
    x = thin
    s = thin + SQUARE
    t = s + SQUARE
    ds = scratch
    dt = scratch + SQUARE
    for tile in range(rank, TILES, TEAM):
        r, c = place(tile, M, BLOCK_R, BLOCK_C)
        sg = product_tn(s, total, r, c, M, M, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
        write(dt, r, c, 0.25 * sg, M, M)
    arrived = meet(counter, arrived, TEAM)
    for tile in range(rank, TILES, TEAM):
        r, c = place(tile, M, BLOCK_R, BLOCK_C)
        gt = product_nt(total, t, r, c, M, M, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
        kept = 3.75 * read(total, r, c, M, M) + read(dt, r, c, M, M)
        write(ds, r, c, 0.25 * gt - kept, M, M)
    arrived = meet(counter, arrived, TEAM)
    for tile in range(rank, TILES, TEAM):
        r, c = place(tile, M, BLOCK_R, BLOCK_C)
        grad = 3.25 * read(total, r, c, M, M) + 7.0 * read(dt, r, c, M, M) + read(own, r, c, M, M)
        grad += product_nt(ds, x, r, c, M, M, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
        grad += product_tn(x, ds, r, c, M, M, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
        write(dx, r, c, grad, M, M)
    return meet(counter, arrived, TEAM)


@triton.jit
def _grads_of_classic_step(
    a, z, x, dz, scratch, dx, grad_a, counter, arrived, rank, M: tl.constexpr, TEAM: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Replace the gradient of the next Z in ``dz`` by that of Z; A's is added in place."""
    SQUARE: tl.constexpr = M * M
    TILES: tl.constexpr = tl.cdiv(M, BLOCK_R) * tl.cdiv(M, BLOCK_C)
    t = x + SQUARE
    root = t + SQUARE
    dr = scratch
    dt = scratch + SQUARE
    kept = scratch + 2 * SQUARE
    for tile in range(rank, TILES, TEAM):
        r, c = place(tile, M, BLOCK_R, BLOCK_C)
        zg = product_tn(z, dz, r, c, M, M, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
        write(dr, r, c, -0.25 * zg, M, M)
        gr = product_nt(dz, root, r, c, M, M, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
        write(kept, r, c, 3.25 * read(dz, r, c, M, M) - 0.25 * gr, M, M)
    arrived = meet(counter, arrived, TEAM)
    for tile in range(rank, TILES, TEAM):
        r, c = place(tile, M, BLOCK_R, BLOCK_C)
        xg = product_tn(x, dr, r, c, M, M, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
        write(dt, r, c, -xg, M, M)
    arrived = meet(counter, arrived, TEAM)
    for tile in range(rank, TILES, TEAM):
        r, c = place(tile, M, BLOCK_R, BLOCK_C)
        total = product_nt(dr, t, r, c, M, M, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
        total += product_nt(dt, x, r, c, M, M, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
        total += product_tn(x, dt, r, c, M, M, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
        grad = 15.0 * read(dr, r, c, M, M) + 7.0 * read(dt, r, c, M, M)
        write(dx, r, c, grad - total, M, M)
    arrived = meet(counter, arrived, TEAM)
    for tile in range(rank, TILES, TEAM):
        r, c = place(tile, M, BLOCK_R, BLOCK_C)
        xz = product_nt(dx, z, r, c, M, M, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
        write(grad_a, r, c, read(grad_a, r, c, M, M) + xz, M, M)
        ax = product_tn(a, dx, r, c, M, M, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
        write(dz, r, c, read(kept, r, c, M, M) + ax, M, M)
    return meet(counter, arrived, TEAM)


@triton.jit
def _grads_of_start(
    a, sums, dz, grad_a, rank, M: tl.constexpr, TEAM: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Add the gradient of A through Z₀ = Aᵀ / (largest row sum · largest column sum).

    Rows, or columns, that share the largest sum share its gradient evenly.
    """
    TILES: tl.constexpr = tl.cdiv(M, BLOCK_R) * tl.cdiv(M, BLOCK_C)
    m = tl.arange(0, BLOCK_M)
    row_sums = tl.load(sums + m, mask=m < M, other=0.0)
    column_sums = tl.load(sums + M + m, mask=m < M, other=0.0)
    largest_row = tl.max(row_sums, 0)
    largest_column = tl.max(column_sums, 0)
    factor = 1.0 / (largest_row * largest_column)
    inner = tl.zeros([16], tl.float32)
    for start in range(0, M, 16):
        r = start + tl.arange(0, 16)
        inside = (r < M)[:, None] & (m < M)[None, :]
        grad = tl.load(dz + m[None, :] * M + r[:, None], mask=inside, other=0.0)
        inner += tl.sum(read(a, r, m, M, M) * grad, 1)
    d_factor = -tl.sum(inner, 0) * factor
    row_ties = tl.sum((row_sums == largest_row).to(tl.float32), 0)
    column_ties = tl.sum((column_sums == largest_column).to(tl.float32), 0)
    of_row = d_factor / (largest_row * row_ties)
    of_column = d_factor / (largest_column * column_ties)
    for tile in range(rank, TILES, TEAM):
        r, c = place(tile, M, BLOCK_R, BLOCK_C)
        is_largest = tl.load(sums + r, mask=r < M, other=0.0) == largest_row
        grad = read(grad_a, r, c, M, M) + factor * tl.trans(read(dz, c, r, M, M))
        grad += tl.where(is_largest, of_row, 0.0)[:, None]
        is_largest = tl.load(sums + M + c, mask=c < M, other=0.0) == largest_column
        grad += tl.where(is_largest, of_column, 0.0)[None, :]
        write(grad_a, r, c, grad, M, M)
