"""Text of PTX -> its kernel and functions: parameters, shared variables, instructions, labels."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from ptx.errors import PtxError

HEADER = re.compile(r"(?:\.(?:visible|extern|weak)\s+)*\.(?:entry|func)\b")
FUNCTION = re.compile(r"\.(entry|func)\s*(?:\(([^)]*)\))?\s*([\w$]+)\s*(?:\(([^)]*)\))?")
PARAMETER = re.compile(r"\.param\s+\.(\w+)\b.*?([\w$]+)\s*$")
SHARED = re.compile(r"\.shared\s+\.align\s+(\d+)\s+\.b8\s+([\w$]+)\[(\d*)\]")
REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+(%[A-Za-z_]+)<\d+>")
LABEL = re.compile(r"([\w$]+):")
STATEMENT = re.compile(r"(?:@(!?)(%\w+)\s+)?([a-z][\w.:]*)\s*(.*)", re.S)
ADDRESS = re.compile(r"\[\s*([%\w$.]+)\s*(?:\+\s*(-?\w+)\s*)?\]")
PIECE = re.compile(r"\s*(\{[^}]*\}|\[[^\]]*\]|\([^)]*\)|[^,]+)\s*(?:,|$)")


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
class Function:
    """A kernel, or a function that it calls.

    Attributes:
        parameters, results: names of its parameters, and of what it gives back.
        registers: prefix -> type, as ``"%rd": "b64"``.
        labels: name -> index of the instruction that follows it.
    """

    name: str
    parameters: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    registers: dict[str, str] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    instructions: list[Instruction] = field(default_factory=list)


@dataclass
class Module:
    """A parsed kernel, with the functions that it calls.

    Parameters and results are named by their function and their place: ``f(0)`` and ``f(=0)``. A
    caller writes those of the function that it calls, so a call passes nothing on.

    Attributes:
        functions: by name, the kernel first.
        parameters: new name of a parameter or a result -> type.
        shared: name -> (alignment, bytes) of variables in shared memory; 0 bytes: given at launch.
    """

    functions: dict[str, Function] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    shared: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def kernel(self) -> Function:
        return next(iter(self.functions.values()))


def parse(text: str) -> Module:
    """The only kernel of a module, and its functions."""
    module, header, kernel = Module(), "", None
    lines = enumerate((line.split("//")[0].strip() for line in text.splitlines()), 1)
    for number, line in lines:
        if found := SHARED.search(line):
            align, name, size = found.groups()
            module.shared[name] = (int(align), int(size or 0))
        elif line == "{" and header:
            function = _function(module, header, number)
            kernel = function.name if ".entry" in header else kernel
            _Body(function).parse(lines)
            header = ""
        elif header or HEADER.match(line):
            header = "" if line.endswith(";") else f"{header} {line}"
    if kernel is None:
        raise PtxError("no kernel (.entry) was found")
    module.functions = {kernel: module.functions.pop(kernel)} | module.functions
    for function in module.functions.values():
        for call in (x for x in function.instructions if x.root == "call"):
            if (name := call_parts(call)[1]) not in module.functions:
                raise PtxError(f"line {call.line}: a call of {name}, which is not in the text")
    return module


def _function(module: Module, header: str, line: int) -> Function:
    """A function without instructions; its parameters get their new names."""
    found = FUNCTION.search(header)
    if found is None:
        raise PtxError(f"line {line}: not the head of a function: {header}")
    _, results, name, parameters = found.groups()
    function = module.functions[name] = Function(name)
    for names, text, mark in (
        (function.parameters, parameters, ""),
        (function.results, results, "="),
    ):
        for declared in filter(str.strip, (text or "").split(",")):
            one = PARAMETER.search(declared)
            if one is None or ".align" in declared.split(".ptr")[0]:
                raise PtxError(f"line {line}: a parameter that is not modelled: {declared}")
            module.parameters[f"{name}({mark}{len(names)})"] = one[1]
            names.append(one[2])
    return function


class _Body:
    """The instructions of one function, as its lines are read."""

    def __init__(self, function: Function):
        self.function = function
        self.names = {x: f"{function.name}({i})" for i, x in enumerate(function.parameters)}
        self.names |= {x: f"{function.name}(={i})" for i, x in enumerate(function.results)}
        # Index of the first instruction of a call's scope, which declares names of its own.
        self.scope: int | None = None

    def parse(self, lines) -> None:
        function, statement = self.function, ""
        for number, line in lines:
            if line == "}" and self.scope is None:
                function.instructions = [_renamed(x, self.names) for x in function.instructions]
                return
            if line == "}":
                self._end_scope(number)
            elif line == "{" and self.scope is None:
                self.scope = len(function.instructions)
            elif line == "{":
                raise PtxError(f"line {number}: nested scopes are not modelled")
            elif found := REGISTERS.match(line):
                function.registers[found[2]] = found[1]
            elif found := LABEL.fullmatch(line):
                function.labels[found[1]] = len(function.instructions)
            elif not line.startswith("."):
                *complete, statement = f"{statement} {line}".split(";")
                for one in complete:
                    function.instructions.append(_instruction(one.strip(), number))
                statement = statement.strip()
        raise PtxError("a function has no end")

    def _end_scope(self, line: int) -> None:
        """Name the parameters that a call's scope declares after the function that is called."""
        inside = self.function.instructions[self.scope :]
        calls = [x for x in inside if x.root == "call"]
        if len(calls) != 1:
            raise PtxError(f"line {line}: a scope without one call is not modelled")
        results, name, parameters = call_parts(calls[0])
        names = {x: f"{name}({i})" for i, x in enumerate(parameters)}
        names |= {x: f"{name}(={i})" for i, x in enumerate(results)}
        self.function.instructions[self.scope :] = [_renamed(x, names) for x in inside]
        self.scope = None


def call_parts(call: Instruction) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """Names of the results, of the function, and of the parameters."""
    first, *rest = call.operands
    results, (name, *rest) = (first, rest) if isinstance(first, tuple) else ((), [first, *rest])
    return results, name, rest[0] if rest else ()


def _renamed(instruction: Instruction, names: dict[str, str]) -> Instruction:
    if "param" not in instruction.modifiers:
        return instruction
    operands = (
        replace(x, base=names.get(x.base, x.base)) if isinstance(x, Address) else x
        for x in instruction.operands
    )
    return replace(instruction, operands=tuple(operands))


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
    if text[:1] in ("{", "("):
        return tuple(filter(None, (part.strip() for part in text[1:-1].split(","))))
    if text.startswith("["):
        found = ADDRESS.fullmatch(text)
        if found is None:
            raise PtxError(f"not an address: {text}")
        return Address(found[1], int(found[2] or "0", 0))
    return text
