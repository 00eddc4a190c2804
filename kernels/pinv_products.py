"""Products that a team of programs computes together, for the steps of the pseudo-inverse.

Each program takes every team-th tile. A tile is computed in one order whichever program takes it,
so results do not depend on the size of the team. Matrices are contiguous. Values and sums are in
fp32; what products read is in fp16 with that precision. The constant SHAPE is ``Shape`` as a tuple.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gimp_fast.kernels.pinv_room import OPERAND, VALUES, operand


@triton.jit
def meet(counter, arrived, team):
    """Wait for the other programs of the team, and see what they wrote.

    ``counter`` counts the programs that have arrived, at this meeting and all before it.
    """
    tl.debug_barrier()
    if team > 1:
        tl.atomic_add(counter, 1, sem="release", scope="gpu")
        while tl.atomic_add(counter, 0, sem="acquire", scope="gpu") < arrived + team:
            pass
        tl.debug_barrier()
    return arrived + team


@triton.jit
def _store(out, at, inside, tile, kept, SIZE: tl.constexpr, SHAPE: tl.constexpr):
    """Write a tile of a matrix: its values, the copy that products read, or both."""
    if SHAPE[5] == "fp16":
        if (kept & VALUES) > 0:
            tl.store(out + at, tile, mask=inside)
        if (kept & OPERAND) > 0:
            tl.store(operand(out, SIZE, SHAPE) + at, tile, mask=inside)
    else:
        tl.store(out + at, tile, mask=inside)


# Inlined, the addresses of all products would be computed first, and not fit the registers. What is
# added is chosen at run time: fewer functions are compiled.
@triton.jit(noinline=True)
def _multiply(
    a, b, out, c, d, out2, alpha, beta, gamma, alpha2, beta2, rank, team, parts, kept, kept2,
    LAYOUT: tl.constexpr, R: tl.constexpr, C: tl.constexpr, K: tl.constexpr,
    SHAPE: tl.constexpr,
):  # fmt: skip
    """The program's tiles of αP (parts = 1), αP + βC (2), αP + βC + γD (3), or of αP and, into
    ``out2``, α₂P + β₂C (4), where P is (R, C): A·B, A·Bᵀ or Aᵀ·B by LAYOUT, with a sum of K terms.
    """
    BLOCK_R: tl.constexpr = SHAPE[2]
    BLOCK_C: tl.constexpr = SHAPE[3]
    BLOCK_K: tl.constexpr = SHAPE[4]
    COLUMNS: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C
    TILES: tl.constexpr = (R + BLOCK_R - 1) // BLOCK_R * COLUMNS
    A_R: tl.constexpr = 1 if LAYOUT == "tn" else K
    A_K: tl.constexpr = R if LAYOUT == "tn" else 1
    B_K: tl.constexpr = 1 if LAYOUT == "nt" else C
    B_C: tl.constexpr = K if LAYOUT == "nt" else 1
    a_read = operand(a, R * K, SHAPE)
    b_read = operand(b, K * C, SHAPE)
    tl.debug_barrier()  # C may have been written by other threads of this program
    for tile in range(rank, TILES, team):
        r = (tile // COLUMNS) * BLOCK_R + tl.arange(0, BLOCK_R)
        col = (tile % COLUMNS) * BLOCK_C + tl.arange(0, BLOCK_C)
        total = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
        for start in range(0, K, BLOCK_K):
            k = start + tl.arange(0, BLOCK_K)
            a_tile = tl.load(
                a_read + r[:, None] * A_R + k[None, :] * A_K,
                mask=(r < R)[:, None] & (k < K)[None, :], other=0.0,
            )  # fmt: skip
            b_tile = tl.load(
                b_read + k[:, None] * B_K + col[None, :] * B_C,
                mask=(k < K)[:, None] & (col < C)[None, :], other=0.0,
            )  # fmt: skip
            if SHAPE[5] == "fp16":
                total = tl.dot(a_tile, b_tile, total)
            else:
                total = tl.dot(a_tile, b_tile, total, input_precision=SHAPE[5])
        at = r[:, None] * C + col[None, :]
        inside = (r < R)[:, None] & (col < C)[None, :]
        result = alpha * total
        if parts > 1:
            c_tile = tl.load(c + at, mask=inside, other=0.0)
            result += beta * c_tile
            if parts == 4:
                both = alpha2 * total + beta2 * c_tile
                _store(out2, at, inside, both, kept2, R * C, SHAPE)
        if parts == 3:
            result += gamma * tl.load(d + at, mask=inside, other=0.0)
        _store(out, at, inside, result, kept, R * C, SHAPE)


@triton.jit
def _number(value):
    """A number that no function is compiled for."""
    return tl.full([], value, tl.float32)


@triton.jit
def _call(
    a, b, out, c, d, out2, alpha, beta, gamma, alpha2, beta2, rank, team, parts, kept, kept2,
    LAYOUT: tl.constexpr, R: tl.constexpr, C: tl.constexpr, K: tl.constexpr, SHAPE: tl.constexpr,
):  # fmt: skip
    _multiply(
        a, b, out, c, d, out2, _number(alpha), _number(beta), _number(gamma), _number(alpha2),
        _number(beta2), rank, team, tl.full([], parts, tl.int32), tl.full([], kept, tl.int32),
        tl.full([], kept2, tl.int32), LAYOUT, R, C, K, SHAPE,
    )  # fmt: skip


@triton.jit
def product(
    out, alpha, a, b, rank, team, kept, LAYOUT: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
    K: tl.constexpr, SHAPE: tl.constexpr,
):  # fmt: skip
    """out = α A·B."""
    _call(
        a, b, out, out, out, out, alpha, 0.0, 0.0, 0.0, 0.0, rank, team, 1, kept, kept, LAYOUT,
        R, C, K, SHAPE,
    )  # fmt: skip


@triton.jit
def product_plus(
    out, alpha, a, b, beta, c, rank, team, kept, LAYOUT: tl.constexpr, R: tl.constexpr,
    C: tl.constexpr, K: tl.constexpr, SHAPE: tl.constexpr,
):  # fmt: skip
    """out = α A·B + β C, where C may be out."""
    _call(
        a, b, out, c, out, out, alpha, beta, 0.0, 0.0, 0.0, rank, team, 2, kept, kept, LAYOUT,
        R, C, K, SHAPE,
    )  # fmt: skip


@triton.jit
def product_plus_two(
    out, alpha, a, b, beta, c, gamma, d, rank, team, kept, LAYOUT: tl.constexpr, R: tl.constexpr,
    C: tl.constexpr, K: tl.constexpr, SHAPE: tl.constexpr,
):  # fmt: skip
    """out = α A·B + β C + γ D, where C or D may be out."""
    _call(
        a, b, out, c, d, out, alpha, beta, gamma, 0.0, 0.0, rank, team, 3, kept, kept, LAYOUT,
        R, C, K, SHAPE,
    )  # fmt: skip


@triton.jit
def product_and_sum(
    out, alpha, a, b, kept, out2, alpha2, beta2, c, kept2, rank, team, LAYOUT: tl.constexpr,
    R: tl.constexpr, C: tl.constexpr, K: tl.constexpr, SHAPE: tl.constexpr,
):  # fmt: skip
    """out = α A·B, and out2 = α₂ A·B + β₂ C."""
    _call(
        a, b, out, c, out, out2, alpha, 0.0, 0.0, alpha2, beta2, rank, team, 4, kept, kept2,
        LAYOUT, R, C, K, SHAPE,
    )  # fmt: skip
