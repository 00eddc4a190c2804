"""Instructions in which the threads of a warp exchange values: shuffles, reductions, matrices."""

from __future__ import annotations

import numpy as np
from ptx.errors import PtxError
from ptx.parser import Instruction
from ptx.program import Scope, Step
from ptx.values import bf16_to_f32, type_of

LANE = np.arange(32)
REDUCTIONS = {
    "add": np.add, "min": np.minimum, "max": np.maximum,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
}  # fmt: skip


def shuffle_sources(mode: str, by: np.ndarray, clamp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lane that each lane reads, and whether it is in the lane's segment (PTX ISA, shfl)."""
    by, limit = by & 31, clamp & 31
    segment = (clamp >> 8) & 31
    last = (LANE & segment) | (limit & ~segment)
    source = {
        "up": LANE - by, "down": LANE + by, "bfly": LANE ^ by,
        "idx": (LANE & segment) | (by & ~segment),
    }[mode]  # fmt: skip
    inside = source >= last if mode == "up" else source <= last
    return np.where(inside, source, LANE), inside


def shuffle(scope: Scope, instruction: Instruction) -> Step:
    mode = instruction.modifiers[1]
    target, *operands = instruction.operands
    target, _, predicate = target.partition("|")
    slots = [scope.slot(x, "b32") for x in operands]
    target, predicate = scope.slot(target), predicate and scope.slot(predicate, "pred")

    def step(machine, mask):
        machine.whole_warps(mask)
        value, by, clamp, members = (machine.full(machine.registers[x]) for x in slots)
        if not (members == 0xFFFFFFFF).all():
            raise PtxError("shfl.sync of some lanes is not modelled")
        by, clamp = (x.reshape(-1, 32).astype(np.int64) for x in (by, clamp))
        source, inside = shuffle_sources(mode, by, clamp)
        found = np.take_along_axis(value.reshape(-1, 32), source, 1)
        machine.put(target, found.reshape(machine.shape), mask)
        if predicate:
            machine.put(predicate, inside.reshape(machine.shape), mask)

    return step


def reduce(scope: Scope, instruction: Instruction) -> Step:
    """``redux.sync``: all lanes get the sum, minimum, … of the warp."""
    function, dtype = REDUCTIONS[instruction.modifiers[1]], type_of(instruction.type)
    target, source, members = instruction.operands
    target, source, members = (scope.slot(x) for x in (target, source, members))

    def step(machine, mask):
        machine.whole_warps(mask)
        if not (machine.registers[members] == 0xFFFFFFFF).all():
            raise PtxError("redux.sync of some lanes is not modelled")
        value = machine.full(machine.registers[source]).reshape(-1, 32).view(dtype)
        result = function.reduce(value, 1, dtype=dtype, keepdims=True)
        result = np.repeat(result, 32, 1).reshape(machine.shape)
        machine.put(target, result.view(np.uint32), mask)

    return step


def multiply_matrices(scope: Scope, instruction: Instruction) -> Step:
    """``mma``: a warp's A·B + C; exact products, added in fp32 and in any order."""
    shape, types = instruction.modifiers[2], instruction.modifiers[-4:]
    if shape == "m16n8k16" and types in (("f32", x, x, "f32") for x in ("bf16", "f16")):
        unpack = _halves_of_bf16 if types[1] == "bf16" else _halves_of_f16
    elif shape == "m16n8k8" and types == ("f32", "tf32", "tf32", "f32"):
        unpack = _truncate
    else:
        raise PtxError(f"{shape} of {types} is not modelled")
    d, a, b, c = ([scope.slot(x) for x in part] for part in instruction.operands)
    if (len(d), len(a), len(b), len(c)) != (4, 4, 2, 4):
        raise PtxError("wrong number of registers")

    def step(machine, mask):
        machine.whole_warps(mask)
        parts = [np.stack([machine.full(machine.registers[x]) for x in part]) for part in (a, b, c)]
        product = np.matmul(_matrix_a(unpack(parts[0])), _matrix_b(unpack(parts[1])))
        result = _registers_of(product) + parts[2].reshape(4, -1).view(np.float32)
        for slot, value in zip(d, result, strict=True):
            machine.put(slot, value.reshape(machine.shape).view(np.uint32), mask)

    return step


def _halves_of_f16(registers: np.ndarray) -> np.ndarray:
    """(count, blocks, threads) -> (count, warps, 8, 4, 2) fp32, the lanes as groups of four."""
    halves = np.ascontiguousarray(registers).view(np.float16).astype(np.float32)
    return halves.reshape(len(registers), -1, 8, 4, 2)


def _halves_of_bf16(registers: np.ndarray) -> np.ndarray:
    halves = bf16_to_f32(np.ascontiguousarray(registers).view(np.uint16))
    return halves.reshape(len(registers), -1, 8, 4, 2)


def _truncate(registers: np.ndarray) -> np.ndarray:
    """The same with one number a register; a GPU does not read the last 13 bits."""
    numbers = (registers & np.uint32(0xFFFFE000)).view(np.float32)
    return numbers.reshape(len(registers), -1, 8, 4, 1)


def _matrix_a(parts: np.ndarray) -> np.ndarray:
    """Registers 0 and 2 have the upper eight rows, 2 and 3 the right half of the columns."""
    _, warps, _, _, width = parts.shape
    parts = parts.reshape(2, 2, warps, 8, 4, width).transpose(2, 1, 3, 0, 4, 5)
    return parts.reshape(warps, 16, 8 * width)


def _matrix_b(parts: np.ndarray) -> np.ndarray:
    """A lane's group is its column; register 1 has the lower half of the rows."""
    _, warps, _, _, width = parts.shape
    return parts.transpose(1, 0, 3, 4, 2).reshape(warps, 8 * width, 8)


def _registers_of(product: np.ndarray) -> np.ndarray:
    """(warps, 16, 8) -> four registers (4, warps · 32), two neighbours of a row each."""
    warps = len(product)
    parts = product.reshape(warps, 2, 8, 4, 2).transpose(1, 4, 0, 2, 3)
    return parts.reshape(4, warps * 32)
