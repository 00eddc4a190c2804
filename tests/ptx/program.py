"""A kernel as Python functions: every instruction is decoded once, and runs for all threads.

A register is a slot in the machine's list. Parameters, special registers and numbers in the text
have slots too, so that an instruction asks its operands for nothing but their slots. Each function
of the kernel has slots of its own. They are the same in every call, as none calls itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from ptx.errors import PtxError
from ptx.parser import Address, Function, Instruction, Module, Operand, call_parts
from ptx.shared_memory import BASE as SHARED_BASE
from ptx.values import bits_of, immediate, type_of

if TYPE_CHECKING:
    from ptx.machine import Machine

# Runs one instruction for the threads of a mask; None: for all of them.
Step = Callable[["Machine", np.ndarray | None], None]
SPECIAL = {
    "%tid.x", "%tid.y", "%tid.z", "%ntid.x", "%ntid.y", "%ntid.z", "%laneid",
    "%ctaid.x", "%ctaid.y", "%ctaid.z", "%nctaid.x", "%nctaid.y", "%nctaid.z",
}  # fmt: skip
ENDS = ("bra", "ret", "exit", "call")


@dataclass
class Block:
    """Instructions without a jump between them, and where to go after the last.

    Attributes:
        end: the jump, return or call at its end; None: the next block follows.
        target: the block that a jump or a call goes to; None: the function ends.
        guard: slot of the predicate of the jump; None: always.
        spins: whether the jump goes back to look again whether another block has arrived.
    """

    steps: list[tuple[Step, Instruction]] = field(default_factory=list)
    end: Instruction | None = None
    target: int | None = None
    guard: int | None = None
    spins: bool = False

    def has(self, modifier: str) -> bool:
        return any(modifier in instruction.modifiers for _, instruction in self.steps)


class Program:
    """A kernel that is ready to run, with shared variables of ``dynamic`` bytes at its end.

    Attributes:
        blocks: of all functions; the kernel starts with the first.
        initial: what every slot holds at the start; ``slots`` has their numbers by name.
        depth: how deep calls can be nested: no function calls itself.
    """

    def __init__(self, module: Module, dynamic: int):
        self.module, self.kernel = module, module.kernel
        self.slots: dict[str, int] = {}
        self.initial: list[np.ndarray] = []
        self.variables, self.shared_size = _place(module, dynamic)
        self.blocks: list[Block] = []
        self.depth = len(module.functions)
        functions = module.functions.values()
        starts = {x.name: _starts(x) for x in functions}
        counts = [0, *accumulate(map(len, starts.values()))]
        self.entries = dict(zip(starts, counts, strict=False))
        for function in functions:
            self._add_blocks(function, starts[function.name])

    def _add_blocks(self, function: Function, starts: list[int]) -> None:
        scope, first = Scope(self, function), len(self.blocks)
        for start, stop in pairwise([*starts, len(function.instructions)]):
            self.blocks.append(block := Block())
            for instruction in function.instructions[start:stop]:
                if instruction.root not in ENDS:
                    block.steps.append((_decode(scope, instruction), instruction))
                    continue
                block.end = instruction
                block.guard = instruction.guard and scope.slot(instruction.guard, "pred")
                if instruction.root == "bra":
                    block.target = first + starts.index(_label(function, instruction))
                elif instruction.root == "call":
                    block.target = self.entries[call_parts(instruction)[1]]
        for number, block in enumerate(self.blocks[first:], first):
            block.spins = self._spins(block, number)

    def _spins(self, block: Block, number: int) -> bool:
        """Whether its jump closes a loop that only looks at what other blocks have counted up."""
        if block.end is None or block.end.root != "bra" or block.target > number:
            return False
        loop = self.blocks[block.target : number + 1]
        return any(x.has("acquire") for x in loop) and not any(x.has("release") for x in loop)

    def slot(self, key: str, initial: np.ndarray) -> int:
        """The slot of this name, which holds this at the start."""
        if key not in self.slots:
            self.slots[key] = len(self.initial)
            self.initial.append(initial)
        return self.slots[key]


class Scope:
    """What the operands of one function mean."""

    def __init__(self, program: Program, function: Function):
        self.program, self.function = program, function

    def slot(self, operand: Operand, type_name: str = "b32") -> int:
        """Slot of a register, or of a number as bits of this type."""
        if not isinstance(operand, str):
            raise PtxError(f"expected a register or a number: {operand}")
        if operand in SPECIAL:
            return self.program.slot(operand, np.zeros((1, 1), np.uint32))
        if operand.startswith("%"):
            key = f"{self.function.name} {operand}"
            if key in self.program.slots:
                return self.program.slots[key]
            return self.program.slot(key, _garbage(self.bits_of(operand)))
        if operand in self.program.variables:
            address = np.array([[self.program.variables[operand]]], np.uint32)
            return self.program.slot(operand, address)
        dtype = type_of(type_name)
        return self.program.slot(f"{operand} {bits_of(dtype)}", immediate(operand, dtype))

    def bits_of(self, register: str) -> np.dtype:
        """The type in which a register is kept."""
        return bits_of(type_of(self.function.registers[register.rstrip("0123456789")]))

    def parameter(self, address: Address) -> tuple[int, np.dtype]:
        """Slot of a parameter or a result, of this function or of one that it calls; its type."""
        if address.offset:
            raise PtxError("parts of a parameter are not modelled")
        dtype = bits_of(type_of(self.program.module.parameters[address.base]))
        return self.program.slot(f"param {address.base}", _garbage(dtype)), dtype


def _starts(function: Function) -> list[int]:
    """Indices of the instructions where blocks begin."""
    count = len(function.instructions)
    after = {i + 1 for i, x in enumerate(function.instructions) if x.root in ENDS}
    jumps = (x for x in function.instructions if x.root == "bra")
    return sorted(({0} | after | {_label(function, x) for x in jumps}) - {count})


def _label(function: Function, jump: Instruction) -> int:
    try:
        return function.labels[jump.operands[0]]
    except KeyError:
        raise PtxError(f"line {jump.line}: there is no label for it") from None


def _decode(scope: Scope, instruction: Instruction) -> Step:
    from ptx.instructions import DECODERS

    place = f"line {instruction.line}: {instruction.text}"
    if instruction.root not in DECODERS:
        raise PtxError(f"instruction {instruction.root!r} is not modelled; {place}")
    try:
        step = DECODERS[instruction.root](scope, instruction)
    except (PtxError, KeyError, ValueError, IndexError, TypeError) as error:
        raise PtxError(f"a form of {instruction.root!r} is not modelled; {place}") from error
    if instruction.guard is None:
        return step
    return _guarded(step, scope.slot(instruction.guard, "pred"), instruction.negated)


def _garbage(dtype: np.dtype) -> np.ndarray:
    """What a register holds before it is written: in a float, NaN."""
    return np.zeros((1, 1), dtype) if dtype.kind == "b" else ~np.zeros((1, 1), dtype)


def _place(module: Module, dynamic: int) -> tuple[dict[str, int], int]:
    """Address of every shared variable, and the bytes of all of them."""
    end, places = 0, {}
    for name, (align, size) in module.shared.items():
        end = -(-end // align) * align
        places[name] = SHARED_BASE + end
        end += size or dynamic
    return places, end


def _guarded(step: Step, slot: int, negated: bool) -> Step:
    def run(machine: Machine, mask: Any) -> None:
        chosen = machine.registers[slot]
        if negated:
            chosen = ~chosen
        if mask is not None:
            chosen = chosen & mask
        if chosen.all():
            step(machine, None)
        elif chosen.any():
            step(machine, chosen)

    return run
