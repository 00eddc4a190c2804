"""Runs a program for many blocks at once, and keeps threads that take different ways apart.

A register is an array that broadcasts to (blocks, threads): what all threads of a block have in
common is (blocks, 1), what all blocks have in common (1, threads). Threads that stand at different
places of the program are groups; the one at the lowest place runs next, so groups meet again where
their ways do. A place is the number of a basic block, after those of the calls that led to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from ptx.errors import PtxError
from ptx.global_memory import GlobalMemory
from ptx.program import Block, Program
from ptx.shared_memory import SharedMemory

# Blocks run at a time until they have so many threads: enough that NumPy's calls cost little, few
# enough that the registers stay in the processor's cache.
LANES = 4096

Place = tuple[int, ...]
Groups = dict[Place, np.ndarray | None]


def execute(
    program: Program, grid: tuple[int, ...], threads: int, parameters: list[np.ndarray],
    memory: GlobalMemory, turns: Iterable[Iterable[int]] | None = None,
) -> None:  # fmt: skip
    """Run a kernel for all blocks of a grid; a parameter is a (1, 1) array of its bits.

    Args:
        turns: of a cooperative launch, whose blocks wait for each other: the blocks that run
            together, in this order; each set runs until it waits for another. Otherwise a set is
            run to its end before the next begins.
    """
    x, y, z = (*grid, 1, 1)[:3]

    def start(numbers: Iterable[int]) -> Iterator[None]:
        numbers = np.array(list(numbers))
        return Machine(program, (x, y, z), numbers, threads, parameters, memory).run()

    with np.errstate(all="ignore"):
        if turns is not None:
            _take_turns([start(numbers) for numbers in turns], memory)
            return
        at_a_time = max(1, LANES // threads)
        for first in range(0, x * y * z, at_a_time):
            numbers = range(first, min(first + at_a_time, x * y * z))
            _take_turns([start(numbers)], memory)


def _take_turns(machines: list[Iterator[None]], memory: GlobalMemory) -> None:
    ended = object()
    while machines:
        before = memory.version
        machines = [x for x in machines if next(x, ended) is not ended]
        if machines and memory.version == before:
            raise PtxError("blocks wait for each other, and none goes on")


class Machine:
    """Some blocks of a grid, while they run."""

    def __init__(self, program, grid, numbers, threads, parameters, memory):
        self.program, self.threads, self.memory = program, threads, memory
        self.numbers = numbers[:, None]
        self.rows = np.arange(len(numbers))[:, None]
        self.lanes = self._lanes()
        self.warps = np.arange(threads)[None] // 32
        self.all_warps = np.array([[-1 if threads > 32 else 0]])
        self.shared = SharedMemory(len(numbers), threads, program.shared_size)
        self.registers = list(program.initial)
        kernel = program.kernel
        if len(parameters) != len(kernel.parameters):
            raise PtxError(f"{kernel.name} takes {len(kernel.parameters)} parameters")
        values = {f"param {kernel.name}({i})": x for i, x in enumerate(parameters)}
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
        return x if x.shape == self.shape else np.broadcast_to(x, self.shape)

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
        arrived = slice(None)
        if mask is not None:
            mask = self.full(mask)
            arrived = mask.any(1)
            if (arrived & ~mask.all(1)).any():
                raise PtxError("only some threads of a block reach a barrier")
        self.shared.barrier(self.rows[arrived, 0])
        self.memory.races.barrier(self.numbers[arrived, 0])

    def run(self) -> Iterator[None]:
        """Run all threads to their end; stop whenever all that are left wait for other blocks."""
        ready: Groups = {(0,): None}
        waiting: Groups = {}
        while ready or waiting:
            if not ready:
                yield
                ready, waiting = waiting, {}
            place = min(ready)
            mask = ready.pop(place)
            block = self.program.blocks[place[-1]]
            self._run_block(block, mask)
            ended = False
            for target, chosen in self._ways(block, place, mask):
                ended |= not target
                if target:
                    groups = waiting if block.spins and target[-1] == block.target else ready
                    _add(groups, target, chosen)
            if ended and (ready or waiting):
                self._forget_ended_blocks(ready, waiting)

    def _run_block(self, block: Block, mask: np.ndarray | None) -> None:
        instruction = None
        try:
            for step, instruction in block.steps:  # noqa: B007
                step(self, mask)
        except (PtxError, ValueError, TypeError) as error:
            place = f"line {instruction.line}: {instruction.text}"
            raise PtxError(f"{self.program.kernel.name}, {place}: {error}") from error

    def _ways(
        self, block: Block, place: Place, mask: np.ndarray | None
    ) -> list[tuple[Place, np.ndarray | None]]:
        """Where the threads of a mask go, and which; an empty place is the end of the kernel."""
        following = (*place[:-1], place[-1] + 1)
        if block.end is None:
            return [(following, mask)]
        jump = self._jump(block, place)
        if block.guard is None:
            return [(jump, mask)]
        taken = self.registers[block.guard]
        taken = ~taken if block.end.negated else taken
        both = ((jump, taken), (following, ~taken))
        if mask is not None:
            both = tuple((target, chosen & mask) for target, chosen in both)
        alive = [(target, chosen) for target, chosen in both if chosen.any()]
        return [(alive[0][0], mask)] if len(alive) == 1 else alive

    def _jump(self, block: Block, place: Place) -> Place:
        """Where the jump, the call or the return at the end of a block goes."""
        if block.end.root == "call":
            if len(place) == self.program.depth:
                raise PtxError(f"line {block.end.line}: a function that calls itself")
            return (*place, block.target)
        if block.end.root == "ret" and len(place) > 1:
            return (*place[:-2], place[-2] + 1)
        return () if block.target is None else (*place[:-1], block.target)

    def _forget_ended_blocks(self, *groups: Groups) -> None:
        """Keep only blocks that have threads left."""
        alive = np.zeros(self.shape, bool)
        for one in groups:
            for mask in one.values():
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
        for one in groups:
            for target, mask in one.items():
                mask = self.full(mask[keep] if len(mask) == count > 1 else mask)
                one[target] = None if mask.all() else mask


def _add(groups: Groups, place: Place, mask: np.ndarray | None) -> None:
    """Let threads join the group at a place."""
    groups[place] = _union(groups[place], mask) if place in groups else mask


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
