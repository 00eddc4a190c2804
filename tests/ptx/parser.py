"""Text of PTX -> the kernel in it: parameters, shared variables, instructions and labels."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ptx.errors import PtxError

ENTRY = re.compile(r"\.entry\s+([\w$]+)")
PARAMETER = re.compile(r"\.param\s+\.(\w+)\b.*?([\w$]+)\s*[,)]?$")
SHARED = re.compile(r"\.shared\s+\.align\s+(\d+)\s+\.b8\s+([\w$]+)\[(\d*)\]")
REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+(%[A-Za-z_]+)<\d+>")
LABEL = re.compile(r"([\w$]+):")
STATEMENT = re.compile(r"(?:@(!?)(%\w+)\s+)?([a-z][\w.:]*)\s*(.*)", re.S)
ADDRESS = re.compile(r"\[\s*([%\w$.]+)\s*(?:\+\s*(-?\w+)\s*)?\]")
PIECE = re.compile(r"\s*(\{[^}]*\}|\[[^\]]*\]|[^,]+)\s*(?:,|$)")


@dataclass(frozen=True)
class Address:
    base: str
    offset: int


Operand = str | Address | tuple[str, ...]


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        root, modifiers: ``ld`` and ``("global", "v4", "b32")`` of ``ld.global.v4.b32``.
        guard: the predicate of ``@%p1`` or ``@!%p1``; ``negated`` tells them apart.
        line, text: where it stands, for messages.
    """

    root: str
    modifiers: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: str | None
    negated: bool
    line: int
    text: str

    @property
    def type(self) -> str:
        return self.modifiers[-1]

    def one_of(self, *names: str) -> str | None:
        """The modifier that is one of these."""
        return next((x for x in self.modifiers if x in names), None)


@dataclass
class Kernel:
    """A parsed kernel.

    Attributes:
        parameters: name -> type, in order.
        shared: name -> (alignment, bytes) of variables in shared memory; 0 bytes: given at launch.
        registers: prefix -> type, as ``"%rd": "b64"``.
        labels: name -> index of the instruction that follows it.
    """

    name: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    shared: dict[str, tuple[int, int]] = field(default_factory=dict)
    registers: dict[str, str] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    instructions: list[Instruction] = field(default_factory=list)


def parse(text: str) -> Kernel:
    """The only kernel of a module."""
    kernel = Kernel()
    lines = enumerate((line.split("//")[0].strip() for line in text.splitlines()), 1)
    for _, line in lines:
        if found := SHARED.search(line):
            align, name, size = found.groups()
            kernel.shared[name] = (int(align), int(size or 0))
        elif found := ENTRY.search(line):
            kernel.name = found[1]
        elif line == "{":
            break
        elif kernel.name and (found := PARAMETER.search(line)):
            kernel.parameters[found[2]] = found[1]
    else:
        raise PtxError("no kernel (.entry) was found")
    _parse_body(kernel, lines)
    return kernel


def _parse_body(kernel: Kernel, lines) -> None:
    statement = ""
    for number, line in lines:
        if line == "}":
            return
        if found := REGISTERS.match(line):
            kernel.registers[found[2]] = found[1]
        elif found := LABEL.fullmatch(line):
            kernel.labels[found[1]] = len(kernel.instructions)
        elif line == "{":
            raise PtxError(f"line {number}: nested scopes are not modelled")
        elif not line.startswith("."):
            *complete, statement = f"{statement} {line}".split(";")
            for one in complete:
                kernel.instructions.append(_instruction(one.strip(), number))
            statement = statement.strip()
    raise PtxError("the kernel has no end")


def _instruction(text: str, line: int) -> Instruction:
    found = STATEMENT.fullmatch(text)
    if found is None:
        raise PtxError(f"line {line}: not an instruction: {text}")
    negation, guard, opcode, operands = found.groups()
    root, *modifiers = opcode.split(".")
    return Instruction(
        root, tuple(modifiers), tuple(map(_operand, PIECE.findall(operands))),
        guard, negation == "!", line, " ".join(text.split()),
    )  # fmt: skip


def _operand(text: str) -> Operand:
    text = text.strip()
    if text.startswith("{"):
        return tuple(part.strip() for part in text[1:-1].split(","))
    if text.startswith("["):
        found = ADDRESS.fullmatch(text)
        if found is None:
            raise PtxError(f"not an address: {text}")
        return Address(found[1], int(found[2] or "0", 0))
    return text
