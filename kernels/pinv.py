"""Z W with Z the hyper-power pseudo-inverse of M×M matrices, and its gradients; fp32.

Each pass is one launch for all matrices: see ``gimp_fast.kernels.pinv_chain``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from gimp_fast.kernels.bags import Bags, bag_size
from gimp_fast.kernels.launch import Architecture, launch, multiprocessors
from gimp_fast.kernels.pinv_chain import last_z, meet, place, product, run_chain, write
from gimp_fast.kernels.pinv_grads import grads_of_chain

THIN_STEPS = 2
# Programs that share one matrix, at most: so many tiles has a product of 256 × 256. At least the
# other number if there are enough: the more matrices are in work, the more memory they take.
LARGEST_TEAM, SMALLEST_TEAM = 16, 4
BLOCK_K = 32


@triton.jit(do_not_specialize=["tokens", "matrices", "teams"])
def _pinv_fwd_kernel(
    cu_seqlens, tokens, matrices, teams, a, w, y, rooms, counters, H,
    M: tl.constexpr, D: tl.constexpr, CLASSIC: tl.constexpr, THIN: tl.constexpr,
    ROOM: tl.constexpr, TEAM: tl.constexpr, PACKED: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    team = tl.program_id(0) // TEAM
    rank = tl.program_id(0) % TEAM
    sums = rooms + team.to(tl.int64) * ROOM
    room = sums + 2 * M
    arrived = team * 0
    wide = team.to(tl.int64) * 0
    for matrix in range(team, matrices, teams):
        if bag_size(cu_seqlens, tokens, matrix // H, PACKED) > M:
            matrix_a = a + (wide + matrix) * M * M
            start = (wide + matrix) * M * D
            arrived = run_chain(
                matrix_a, w + start, sums, room, counters + team, arrived, rank, M, D, CLASSIC,
                THIN, False, TEAM, BLOCK_M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION,
            )  # fmt: skip
            z = last_z(room, M, CLASSIC, False)
            u = w + start
            if THIN > 0:
                u = room + (9 * M * M + 2 * M * D)
            NARROW_TILES: tl.constexpr = tl.cdiv(M, BLOCK_R) * tl.cdiv(D, BLOCK_C)
            for tile in range(rank, NARROW_TILES, TEAM):
                r, c = place(tile, D, BLOCK_R, BLOCK_C)
                zu = product(z, u, r, c, M, D, M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION)
                write(y + start, r, c, zu, M, D)
            # The room is written again for the next matrix.
            arrived = meet(counters + team, arrived, TEAM)


@triton.jit(do_not_specialize=["tokens", "matrices", "teams"])
def _pinv_bwd_kernel(
    cu_seqlens, tokens, matrices, teams, grad_y, a, w, grad_a, grad_w, rooms, counters, H,
    M: tl.constexpr, D: tl.constexpr, CLASSIC: tl.constexpr, THIN: tl.constexpr,
    ROOM: tl.constexpr, TEAM: tl.constexpr, PACKED: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    team = tl.program_id(0) // TEAM
    rank = tl.program_id(0) % TEAM
    sums = rooms + team.to(tl.int64) * ROOM
    room = sums + 2 * M
    arrived = team * 0
    wide = team.to(tl.int64) * 0
    for matrix in range(team, matrices, teams):
        if bag_size(cu_seqlens, tokens, matrix // H, PACKED) > M:
            square = (wide + matrix) * M * M
            start = (wide + matrix) * M * D
            arrived = run_chain(
                a + square, w + start, sums, room, counters + team, arrived, rank, M, D, CLASSIC,
                THIN, True, TEAM, BLOCK_M, BLOCK_R, BLOCK_C, BLOCK_K, PRECISION,
            )  # fmt: skip
            arrived = grads_of_chain(
                grad_y + start, a + square, w + start, grad_a + square, grad_w + start, sums, room,
                counters + team, arrived, rank, M, D, CLASSIC, THIN, TEAM, BLOCK_M, BLOCK_R,
                BLOCK_C, BLOCK_K, PRECISION,
            )  # fmt: skip
            arrived = meet(counters + team, arrived, TEAM)


@dataclass(frozen=True)
class _Plan:
    """How the matrices are shared among programs."""

    team: int  # programs of a matrix
    teams: int
    room: int  # floats of a team

    @property
    def programs(self) -> int:
        return self.team * self.teams


def _plan(a: Tensor, d: int, classic: int, thin: int, records: bool, arch: Architecture) -> _Plan:
    b, h, m, _ = a.shape
    tiles = triton.cdiv(m, arch.product.tokens) * triton.cdiv(m, arch.product.landmarks)
    available = multiprocessors(a.device)
    team = 1
    while 2 * team <= min(tiles, LARGEST_TEAM, available) and (
        2 * team * b * h <= available or 2 * team <= SMALLEST_TEAM
    ):
        team *= 2
    kept = max(classic, 1) if records else 1
    squares, narrows = 4 * kept + 5, 3 * max(thin, 1)
    if records:
        squares, narrows = squares + 7, narrows + 5
    teams = min(b * h, available // team)
    return _Plan(team, teams, 2 * m + squares * m * m + narrows * m * d)


def pinv_matmul_fwd(
    a: Tensor, w: Tensor, iterations: int, bags: Bags, arch: Architecture, precision: str
) -> Tensor:
    """Z W.

    Args:
        a: (B, H, M, M) fp32, rows that sum to one.
        w: (B, H, M, D) fp32.
        precision: of the products, ``"ieee"``, ``"tf32x3"`` or ``"tf32"``.

    Returns:
        (B, H, M, D) fp32; rows of bags of N ≤ M tokens are not written.
    """
    y = w.new_empty(w.shape)
    _run(_pinv_fwd_kernel, (a, w, y), a, w, iterations, bags, arch, precision, records=False)
    return y


def pinv_matmul_bwd(
    grad_y: Tensor,
    a: Tensor,
    w: Tensor,
    iterations: int,
    bags: Bags,
    arch: Architecture,
    precision: str,
) -> tuple[Tensor, Tensor]:
    """Gradients of A and W from that of Z W, all fp32; the chain is recomputed."""
    grad_a, grad_w = a.new_empty(a.shape), w.new_empty(w.shape)
    operands = (grad_y, a, w, grad_a, grad_w)
    _run(_pinv_bwd_kernel, operands, a, w, iterations, bags, arch, precision, records=True)
    return grad_a, grad_w


def _run(
    kernel: Any, operands: tuple[Tensor, ...], a: Tensor, w: Tensor, iterations: int, bags: Bags,
    arch: Architecture, precision: str, *, records: bool,
) -> None:  # fmt: skip
    b, h, m, _ = a.shape
    d, thin = w.shape[3], min(iterations, THIN_STEPS)
    classic = iterations - thin
    plan = _plan(a, d, classic, thin, records, arch)
    launch(
        kernel, (plan.programs,), arch.product,
        bags.cu_seqlens, bags.tokens, b * h, plan.teams, *operands,
        a.new_empty(plan.teams, plan.room),
        a.new_zeros(plan.teams, dtype=torch.int32), h,
        M=m, D=d, CLASSIC=classic, THIN=thin, ROOM=plan.room, TEAM=plan.team,
        **bags.constants, BLOCK_M=triton.next_power_of_2(m), BLOCK_R=arch.product.tokens,
        BLOCK_C=arch.product.landmarks, BLOCK_K=BLOCK_K, PRECISION=precision,
        cooperative=plan.team > 1,
    )  # fmt: skip
