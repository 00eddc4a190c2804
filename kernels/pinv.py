"""Z W with Z the hyper-power pseudo-inverse of M×M matrices, and its gradients; fp32.

Each pass is one launch for all matrices: see ``gimp_fast.kernels.pinv_chain``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from gimp_fast.kernels.bags import Bags, bag_size
from gimp_fast.kernels.launch import Architecture, Config, launch, multiprocessors
from gimp_fast.kernels.long_bags import matrix_slot
from gimp_fast.kernels.pinv_chain import run_chain
from gimp_fast.kernels.pinv_grads import grads_of_chain
from gimp_fast.kernels.pinv_products import meet, product
from gimp_fast.kernels.pinv_range import normalised
from gimp_fast.kernels.pinv_room import (
    VALUES,
    Shape,
    applied,
    last_z,
    place,
    room_size,
    steps_of,
)

# Programs that share one matrix, at most: so many tiles of 64 × 64 has a product of 256 × 256.
LARGEST_TEAM = 16
# At least one program for so many entries of a matrix, if there are enough tiles. A small team has
# more tiles from one meeting to the next, which takes as long as one or two of them. But each takes
# the memory of a room, for 256 × 256 and its gradients 8.9 MiB, and works on 1.5 of it at a time.
# With this number all rooms together take about 300 MiB, for any number and size of matrices, and
# the second-level cache of a large GPU holds what all teams work on.
ENTRIES_OF_A_PROGRAM = 128 * 128
# Terms of a product's sum at a time.
BLOCK_K, HALF_BLOCK_K = 32, 64


@triton.jit
def _place(rooms, team, ROOM: tl.constexpr):
    """A program's team, its rank there, and the room of the team."""
    number = tl.program_id(0) // team
    return number, tl.program_id(0) % team, rooms + number.to(tl.int64) * ROOM


@triton.jit
def _offsets(
    cu_seqlens, tokens, matrices, number, matrix, H, M: tl.constexpr, D: tl.constexpr,
    PACKED: tl.constexpr,
):  # fmt: skip
    """Where the (M, M) and the (M, D) of one matrix begin."""
    wide = number.to(tl.int64) * 0
    slot = matrix_slot(cu_seqlens, tokens, matrices // H, matrix // H, M, PACKED)
    return ((wide + slot) * H + matrix % H) * M * M, (wide + matrix) * M * D


@triton.jit(do_not_specialize=["tokens", "matrices", "team", "teams"])
def _pinv_fwd_kernel(
    cu_seqlens, tokens, matrices, team, teams, a, w, y, rooms, counters, H,
    ROOM: tl.constexpr, PACKED: tl.constexpr, BLOCK_M: tl.constexpr, STEPS: tl.constexpr,
    SHAPE: tl.constexpr,
):  # fmt: skip
    M: tl.constexpr = SHAPE[0]
    D: tl.constexpr = SHAPE[1]
    number, rank, room = _place(rooms, team, ROOM)
    arrived = number * 0
    for matrix in range(number, matrices, teams):
        if bag_size(cu_seqlens, tokens, matrix // H, PACKED) > M:
            square, start = _offsets(cu_seqlens, tokens, matrices, number, matrix, H, M, D, PACKED)
            scaled = room + place("w", STEPS, SHAPE)
            undo = normalised(w + start, scaled, rank, team, SHAPE)
            arrived = run_chain(
                a + square, room, counters + number, arrived, rank, team, BLOCK_M, STEPS, SHAPE
            )
            z = last_z(room, STEPS, SHAPE)
            u = applied(room, STEPS, SHAPE)
            product(y + start, undo, z, u, rank, team, VALUES, "nn", M, D, M, SHAPE)
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
    number, rank, room = _place(rooms, team, ROOM)
    arrived = number * 0
    for matrix in range(number, matrices, teams):
        if bag_size(cu_seqlens, tokens, matrix // H, PACKED) > M:
            square, start = _offsets(cu_seqlens, tokens, matrices, number, matrix, H, M, D, PACKED)
            scaled = room + place("w", STEPS, SHAPE)
            undo = normalised(w + start, scaled, rank, team, SHAPE)
            scaled = room + place("dy", STEPS, SHAPE)
            undo_grad = normalised(grad_y + start, scaled, rank, team, SHAPE)
            arrived = run_chain(
                a + square, room, counters + number, arrived, rank, team, BLOCK_M, STEPS, SHAPE
            )
            arrived = grads_of_chain(
                a + square, grad_a + square, grad_w + start, undo, undo_grad, room,
                counters + number, arrived, rank, team, BLOCK_M, STEPS, SHAPE,
            )  # fmt: skip


def _team(matrices: int, m: int, config: Config, available: int) -> int:
    """How many of ``available`` programs share a matrix."""
    tiles = triton.cdiv(m, config.tokens) * triton.cdiv(m, config.landmarks)
    team = 1
    while 2 * team <= min(tiles, LARGEST_TEAM, available) and (
        2 * team * matrices <= available or 2 * team * ENTRIES_OF_A_PROGRAM <= m * m
    ):
        team *= 2
    return team


def _config(m: int, arch: Architecture, precision: str) -> Config:
    """Tiles of the products, for any number of matrices: so a matrix has the same bits in a batch.

    Small matrices have few tiles, and tiles of more than 64 rows would leave programs without any.
    """
    config = (arch.half_product if precision == "fp16" else None) or arch.product
    return config if m > 128 else replace(config, tokens=min(config.tokens, 64))


def pinv_matmul_fwd(
    a: Tensor, w: Tensor, iterations: int, bags: Bags, arch: Architecture, precision: str
) -> Tensor:
    """Z W.

    Args:
        a: (slots, H, M, M) fp32, rows that sum to one: see ``gimp_fast.kernels.long_bags``.
        w: (B, H, M, D) fp32.
        precision: of the products, ``"ieee"``, ``"tf32x3"`` or ``"fp16"``.

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
    config = _config(m, arch, precision)
    available = multiprocessors(a.device)
    in_work = a.shape[0] * h  # at most
    team = _team(in_work, m, config, available)
    teams = min(in_work, available // team)
    block_k = HALF_BLOCK_K if precision == "fp16" else BLOCK_K
    shape = Shape(m, d, config.tokens, config.landmarks, block_k, precision)
    steps = steps_of(iterations, keeps)
    room = room_size(steps, shape)
    launch(
        kernel, (team * teams,), config,
        bags.cu_seqlens, bags.tokens, b * h, team, teams, *operands,
        a.new_empty(teams, room), a.new_zeros(teams, dtype=torch.int32), h,
        ROOM=room, **bags.constants, BLOCK_M=triton.next_power_of_2(m), STEPS=tuple(steps),
        SHAPE=tuple(shape), cooperative=team > 1,
    )  # fmt: skip
