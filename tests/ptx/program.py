"""A kernel as functions: every instruction is decoded once, and runs for all threads at a time.

A register is a slot in the machine's list. Parameters, special registers and numbers in the text
have slots too, so that an instruction asks its operands for nothing but their slots.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from ptx.errors import PtxError
from ptx.parser import Address, Instruction, Kernel, Operand
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


@dataclass
class Block:
    """Instructions without a jump between them, and where to go after the last.

    Attributes:
        target: the block to jump to, if the jump is taken; None: the thread ends.
        guard: slot of the predicate of the jump; None: always.
        ends: whether there is a jump at all; otherwise the next block follows.
    """

    steps: list[tuple[Step, Instruction]] = field(default_factory=list)
    target: int | None = None
    guard: int | None = None
    negated: bool = False
    ends: bool = False


class Program:
    """A kernel that is ready to run, with shared variables of ``dynamic`` bytes at its end."""

    def __init__(self, kernel: Kernel, dynamic: int):
        self.kernel = kernel
        self.slots: dict[str, int] = {}
        self.initial: list[np.ndarray] = []
        self.variables, self.shared_size = _place(kernel, dynamic)
        self.blocks = self._blocks(kernel)

    def _blocks(self, kernel: Kernel) -> list[Block]:
        jumps = [i for i, x in enumerate(kernel.instructions) if x.root in ("bra", "ret", "exit")]
        targets = {self._label(kernel.instructions[i]) for i in jumps} - {None}
        starts = sorted({0, *targets, *(i + 1 for i in jumps)} - {len(kernel.instructions)})
        number = {start: i for i, start in enumerate(starts)}
        blocks = []
        for start, stop in zip(starts, [*starts[1:], len(kernel.instructions)], strict=True):
            blocks.append(block := Block())
            for instruction in kernel.instructions[start:stop]:
                if instruction.root not in ("bra", "ret", "exit"):
                    block.steps.append((self._decode(instruction), instruction))
                    continue
                label = self._label(instruction)
                block.ends, block.negated = True, instruction.negated
                block.target = None if label is None else number[label]
                block.guard = instruction.guard and self.slot(instruction.guard, "pred")
        return blocks

    def _label(self, instruction: Instruction) -> int | None:
        if instruction.root != "bra":
            return None
        try:
            return self.kernel.labels[instruction.operands[0]]
        except KeyError:
            raise PtxError(f"line {instruction.line}: there is no label for it") from None

    def _decode(self, instruction: Instruction) -> Step:
        from ptx.instructions import DECODERS

        place = f"line {instruction.line}: {instruction.text}"
        if instruction.root not in DECODERS:
            raise PtxError(f"instruction {instruction.root!r} is not modelled; {place}")
        try:
            step = DECODERS[instruction.root](self, instruction)
        except (PtxError, KeyError, ValueError, IndexError, TypeError) as error:
            raise PtxError(f"a form of {instruction.root!r} is not modelled; {place}") from error
        if instruction.guard is None:
            return step
        return _guarded(step, self.slot(instruction.guard, "pred"), instruction.negated)

    def slot(self, operand: Operand, type_name: str = "b32") -> int:
        """Slot of a register, or of a number as bits of this type."""
        if operand in self.slots:
            return self.slots[operand]
        if not isinstance(operand, str):
            raise PtxError(f"expected a register or a number: {operand}")
        if operand in SPECIAL:
            return self._slot(operand, np.zeros((1, 1), np.uint32))
        if operand.startswith("%"):
            return self._slot(operand, _garbage(self.bits_of(operand)))
        if operand in self.variables:
            return self._slot(operand, np.array([[self.variables[operand]]], np.uint32))
        dtype = type_of(type_name)
        return self._slot(f"{operand} {bits_of(dtype)}", immediate(operand, dtype))

    def bits_of(self, register: str) -> np.dtype:
        """The type in which a register is kept."""
        return bits_of(type_of(self.kernel.registers[register.rstrip("0123456789")]))

    def parameter(self, address: Address) -> int:
        """Slot of a parameter of the kernel."""
        if address.offset:
            raise PtxError("parts of a parameter are not modelled")
        dtype = bits_of(type_of(self.kernel.parameters[address.base]))
        return self._slot(f"param {address.base}", np.zeros((1, 1), dtype))

    def _slot(self, key: str, initial: np.ndarray) -> int:
        if key not in self.slots:
            self.slots[key] = len(self.initial)
            self.initial.append(initial)
        return self.slots[key]


def _garbage(dtype: np.dtype) -> np.ndarray:
    """What a register holds before it is written: in a float, NaN."""
    most = False if dtype.kind == "b" else np.iinfo(dtype).max
    return np.full((1, 1), most, dtype)


def _place(kernel: Kernel, dynamic: int) -> tuple[dict[str, int], int]:
    """Address of every shared variable, and the bytes of all of them."""
    end, places = 0, {}
    for name, (align, size) in kernel.shared.items():
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
