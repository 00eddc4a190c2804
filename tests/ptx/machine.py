"""Runs a program for many blocks at once, and keeps threads that take different ways apart.

A register is an array that broadcasts to (blocks, threads): what all threads of a block have in
common is (blocks, 1), what all blocks have in common (1, threads). Threads that stand at different
places of the program are groups; the one at the lowest place runs next, so groups meet again where
their ways do.
"""

from __future__ import annotations

import numpy as np
from ptx.errors import PtxError
from ptx.global_memory import GlobalMemory
from ptx.program import Block, Program
from ptx.shared_memory import SharedMemory

# Blocks run at a time until they have so many threads: enough that NumPy's calls cost little, few
# enough that the registers stay in the processor's cache.
LANES = 4096


def execute(
    program: Program, grid: tuple[int, ...], threads: int, parameters: list[np.ndarray],
    memory: GlobalMemory,
) -> None:  # fmt: skip
    """Run a kernel for all blocks of a grid; a parameter is a (1, 1) array of its bits."""
    x, y, z = (*grid, 1, 1)[:3]
    at_a_time = max(1, LANES // threads)
    for first in range(0, x * y * z, at_a_time):
        numbers = np.arange(first, min(first + at_a_time, x * y * z))
        with np.errstate(all="ignore"):
            Machine(program, (x, y, z), numbers, threads, parameters, memory).run()


class Machine:
    """Some blocks of a grid, while they run."""

    def __init__(self, program, grid, numbers, threads, parameters, memory):
        self.program, self.threads, self.memory = program, threads, memory
        self.numbers = numbers[:, None]
        self.rows = np.arange(len(numbers))[:, None]
        self.lanes = self._lanes()
        self.shared = SharedMemory(len(numbers), threads, program.shared_size)
        self.registers = list(program.initial)
        named = dict(zip(program.kernel.parameters, parameters, strict=True))
        values = {f"param {name}": value for name, value in named.items()}
        values |= _special(grid, numbers, threads)
        for name, value in values.items():
            if name in program.slots:
                self.registers[program.slots[name]] = value

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), self.threads

    def _lanes(self) -> np.ndarray:
        """(blocks, threads) numbers of the threads, as shared memory counts them."""
        return self.rows * self.threads + np.arange(self.threads)

    def full(self, x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(x, self.shape)

    def put(self, slot: int, value: np.ndarray, mask: np.ndarray | None) -> None:
        """Write a register of the threads of a mask."""
        registers = self.registers
        registers[slot] = value if mask is None else np.where(mask, value, registers[slot])

    def whole_warps(self, mask: np.ndarray | None) -> None:
        """Refuse a mask that has only a part of a warp."""
        if mask is not None:
            warps = self.full(mask).reshape(-1, 32)
            if (warps.any(1) & ~warps.all(1)).any():
                raise PtxError("only a part of a warp runs an instruction for whole warps")

    def barrier(self, mask: np.ndarray | None) -> None:
        if mask is None:
            self.shared.barrier(self.rows[:, 0])
            return
        mask = self.full(mask)
        arrived = mask.any(1)
        if (arrived & ~mask.all(1)).any():
            raise PtxError("only some threads of a block reach a barrier")
        self.shared.barrier(self.rows[arrived, 0])

    def run(self) -> None:
        """Run all threads to their end."""
        waiting: dict[int, np.ndarray | None] = {0: None}
        while waiting:
            here = min(waiting)
            mask = waiting.pop(here)
            block = self.program.blocks[here]
            self._run_block(block, mask)
            for target, chosen in self._ways(block, here, mask):
                if target is not None:
                    waiting[target] = (
                        _union(waiting[target], chosen) if target in waiting else chosen
                    )
            if waiting and block.ends and block.target is None:
                self._forget_ended_blocks(waiting)

    def _run_block(self, block: Block, mask: np.ndarray | None) -> None:
        instruction = None
        try:
            for step, instruction in block.steps:  # noqa: B007
                step(self, mask)
        except (PtxError, ValueError, TypeError) as error:
            place = f"line {instruction.line}: {instruction.text}"
            raise PtxError(f"{self.program.kernel.name}, {place}: {error}") from error

    def _ways(self, block: Block, here: int, mask):
        """Where the threads of a mask go: (block or None, mask)."""
        if not block.ends:
            return [(here + 1, mask)]
        if block.guard is None:
            return [(block.target, mask)]
        taken = self.registers[block.guard]
        taken = ~taken if block.negated else taken
        both = ((block.target, taken), (here + 1, ~taken))
        if mask is not None:
            both = tuple((target, chosen & mask) for target, chosen in both)
        alive = [(target, chosen) for target, chosen in both if chosen.any()]
        return [(alive[0][0], mask)] if len(alive) == 1 else alive

    def _forget_ended_blocks(self, waiting: dict[int, np.ndarray | None]) -> None:
        """Keep only blocks that have threads left."""
        alive = np.zeros(self.shape, bool)
        for mask in waiting.values():
            alive |= True if mask is None else mask
        keep = alive.any(1)
        if keep.all():
            return
        count = len(keep)
        for i, x in enumerate(self.registers):
            if len(x) == count > 1:
                self.registers[i] = x[keep]
        self.rows, self.numbers = self.rows[keep], self.numbers[keep]
        self.lanes = self._lanes()
        for target, mask in waiting.items():
            mask = self.full(mask[keep] if len(mask) == count > 1 else mask)
            waiting[target] = None if mask.all() else mask


def _union(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
    if a is None or b is None:
        return None
    both = a | b
    return None if both.all() else both


def _special(grid, numbers: np.ndarray, threads: int) -> dict[str, np.ndarray]:
    """Values of the special registers."""
    x, y, _ = grid
    numbers, zero = numbers[:, None].astype(np.uint32), np.zeros((1, 1), np.uint32)
    thread = np.arange(threads, dtype=np.uint32)[None]
    values = {"%tid.x": thread, "%tid.y": zero, "%tid.z": zero, "%laneid": thread % np.uint32(32)}
    values |= {"%ntid.x": zero + np.uint32(threads), "%ntid.y": zero + np.uint32(1)}
    values["%ntid.z"] = values["%ntid.y"]
    places = (numbers % x, numbers // x % y, numbers // (x * y))
    for axis, size, place in zip("xyz", grid, places, strict=True):
        values[f"%ctaid.{axis}"] = place.astype(np.uint32)
        values[f"%nctaid.{axis}"] = zero + np.uint32(size)
    return values
