"""Z W with Z the hyper-power pseudo-inverse of M×M matrices, and its gradients; fp32.

Each pass is one launch for all matrices: see ``gimp_fast.kernels.pinv_chain``.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from gimp_fast.kernels.bags import Bags, bag_size
from gimp_fast.kernels.launch import Architecture, launch, multiprocessors
from gimp_fast.kernels.pinv_chain import applied, last_z, room_size, run_chain, steps_of
from gimp_fast.kernels.pinv_grads import grads_of_chain, grads_size
from gimp_fast.kernels.pinv_products import Shape, meet, product

# Programs that share one matrix, at most: so many tiles has a product of 256 × 256. At least the
# other number if there are enough: the more matrices are in work, the more memory they take.
LARGEST_TEAM, SMALLEST_TEAM = 16, 4
BLOCK_K = 32


@triton.jit(do_not_specialize=["tokens", "matrices", "team", "teams"])
def _pinv_fwd_kernel(
    cu_seqlens, tokens, matrices, team, teams, a, w, y, rooms, counters, H,
    ROOM: tl.constexpr, PACKED: tl.constexpr, BLOCK_M: tl.constexpr, STEPS: tl.constexpr,
    SHAPE: tl.constexpr,
):  # fmt: skip
    M: tl.constexpr = SHAPE[0]
    D: tl.constexpr = SHAPE[1]
    number = tl.program_id(0) // team
    rank = tl.program_id(0) % team
    wide = number.to(tl.int64) * 0
    room = rooms + (wide + number) * ROOM
    arrived = number * 0
    for matrix in range(number, matrices, teams):
        if bag_size(cu_seqlens, tokens, matrix // H, PACKED) > M:
            matrix_a = a + (wide + matrix) * M * M
            start = (wide + matrix) * M * D
            arrived = run_chain(
                matrix_a, w + start, room, counters + number, arrived, rank, team,
                BLOCK_M, STEPS, SHAPE,
            )  # fmt: skip
            u = applied(w + start, room, STEPS, M, D)
            product(y + start, 1.0, last_z(room, STEPS, M), u, rank, team, "nn", M, D, M, SHAPE)
            # The next matrix takes the room.
            arrived = meet(counters + number, arrived, team)


@triton.jit(do_not_specialize=["tokens", "matrices", "team", "teams"])
def _pinv_bwd_kernel(
    cu_seqlens, tokens, matrices, team, teams, grad_y, a, w, grad_a, grad_w, rooms, counters, H,
    ROOM: tl.constexpr, PACKED: tl.constexpr, BLOCK_M: tl.constexpr, STEPS: tl.constexpr,
    SHAPE: tl.constexpr,
):  # fmt: skip
    M: tl.constexpr = SHAPE[0]
    D: tl.constexpr = SHAPE[1]
    number = tl.program_id(0) // team
    rank = tl.program_id(0) % team
    wide = number.to(tl.int64) * 0
    room = rooms + (wide + number) * ROOM
    arrived = number * 0
    for matrix in range(number, matrices, teams):
        if bag_size(cu_seqlens, tokens, matrix // H, PACKED) > M:
            square = (wide + matrix) * M * M
            start = (wide + matrix) * M * D
            arrived = run_chain(
                a + square, w + start, room, counters + number, arrived, rank, team,
                BLOCK_M, STEPS, SHAPE,
            )  # fmt: skip
            arrived = grads_of_chain(
                grad_y + start, a + square, w + start, grad_a + square, grad_w + start, room,
                counters + number, arrived, rank, team, BLOCK_M, STEPS, SHAPE,
            )  # fmt: skip


def _team(matrices: int, m: int, arch: Architecture, available: int) -> int:
    """How many of ``available`` programs share a matrix."""
    tiles = triton.cdiv(m, arch.product.tokens) * triton.cdiv(m, arch.product.landmarks)
    team = 1
    while 2 * team <= min(tiles, LARGEST_TEAM, available) and (
        2 * team * matrices <= available or 2 * team <= SMALLEST_TEAM
    ):
        team *= 2
    return team


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
    _run(_pinv_fwd_kernel, (a, w, y), a, w, iterations, bags, arch, precision, keeps=False)
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
    _run(_pinv_bwd_kernel, operands, a, w, iterations, bags, arch, precision, keeps=True)
    return grad_a, grad_w


def _run(
    kernel: Any, operands: tuple[Tensor, ...], a: Tensor, w: Tensor, iterations: int, bags: Bags,
    arch: Architecture, precision: str, *, keeps: bool,
) -> None:  # fmt: skip
    b, h, m, d = w.shape
    config, available = arch.product, multiprocessors(a.device)
    team = _team(b * h, m, arch, available)
    teams = min(b * h, available // team)
    shape = Shape(m, d, config.tokens, config.landmarks, BLOCK_K, precision)
    steps = steps_of(iterations, keeps)
    room = triton.cdiv(room_size(steps, shape) + (grads_size(shape) if keeps else 0), 32) * 32
    launch(
        kernel, (team * teams,), config,
        bags.cu_seqlens, bags.tokens, b * h, team, teams, *operands,
        a.new_empty(teams, room), a.new_zeros(teams, dtype=torch.int32), h,
        ROOM=room, **bags.constants, BLOCK_M=triton.next_power_of_2(m), STEPS=tuple(steps),
        SHAPE=tuple(shape), cooperative=team > 1,
    )  # fmt: skip
