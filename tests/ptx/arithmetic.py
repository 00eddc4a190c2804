"""Instructions that compute each thread's value from its own registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from ptx.errors import PtxError
from ptx.parser import Instruction
from ptx.program import Scope, Step
from ptx.values import bits_of, flush, fma, type_of

WIDER = {"s16": "s32", "u16": "u32", "s32": "s64", "u32": "u64"}


def elementwise(
    scope: Scope, instruction: Instruction, compute: Callable[..., np.ndarray],
    sources: Sequence[str], result: str,
) -> Step:  # fmt: skip
    """A step that gives ``compute`` the operands as their types and keeps its result."""
    if len(instruction.operands) != len(sources) + 1:
        raise PtxError(f"expected {len(sources) + 1} operands")
    target = scope.slot(instruction.operands[0])
    slots = [
        (scope.slot(x, t), type_of(t))
        for x, t in zip(instruction.operands[1:], sources, strict=True)
    ]
    kept = bits_of(type_of(result))

    def step(machine, mask):
        registers = machine.registers
        value = compute(*[registers[slot].view(dtype) for slot, dtype in slots])
        machine.put(target, value.view(kept), mask)

    return step


def same_type(function: Callable, count: int, floats: Callable | None = None) -> Callable:
    """A decoder of an instruction whose operands and result have its type."""

    def decode(scope: Scope, instruction: Instruction) -> Step:
        name = instruction.type
        of_floats = name[0] == "f"
        compute = floats if of_floats else function
        if compute is None or name in ("f16", "bf16", "bf16x2", "f16x2", "f64"):
            raise PtxError(f"it is not modelled for .{name}")
        _refuse(instruction, "sat", "x2", "hi", "cc")
        if of_floats:
            _refuse(instruction, "rz", "rm", "rp", "NaN", "xorsign")
            compute = _flushing(compute) if "ftz" in instruction.modifiers else compute
        return elementwise(scope, instruction, compute, [name] * count, name)

    return decode


def _refuse(instruction: Instruction, *names: str) -> None:
    if found := instruction.one_of(*names):
        raise PtxError(f"modifier .{found} is not modelled")


def _flushing(compute: Callable) -> Callable:
    return lambda *operands: flush(compute(*map(flush, operands)))


def _exact_in_fp64(function: Callable) -> Callable:
    """A function of fp32 computed in fp64: correctly rounded, better than a GPU's approximation."""
    return lambda x: function(x.astype(np.float64)).astype(np.float32)


def quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Division that truncates, as C's; by zero it gives zero."""
    floor = a // b
    down = (a - floor * b != 0) & ((a < 0) != (b < 0))
    return floor + down.astype(a.dtype)


def remainder(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a - quotient(a, b) * b


def multiply(scope: Scope, instruction: Instruction, added: bool = False) -> Step:
    """``mul`` and ``mad``: floats, and the low, high or whole product of integers."""
    name = instruction.type
    if name[0] == "f":
        return FLOAT_MULTIPLY[added](scope, instruction)
    kind = instruction.modifiers[0]
    wide = WIDER.get(name)
    if kind == "lo":
        product, result = np.multiply, name
    elif kind == "wide":
        product, result = partial(np.multiply, dtype=type_of(wide)), wide
    elif kind == "hi" and wide:
        product, result = partial(_high, type_of(wide), type_of(name)), name
    else:
        raise PtxError(f".{kind} is not modelled for .{name}")
    if not added:
        return elementwise(scope, instruction, product, [name, name], result)
    return elementwise(
        scope, instruction, lambda a, b, c: product(a, b) + c, [name, name, result], result
    )


def _high(wide: np.dtype, narrow: np.dtype, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    product = np.multiply(a, b, dtype=wide)
    return (product >> np.array(8 * narrow.itemsize, wide)).astype(narrow)


def shift(scope: Scope, instruction: Instruction) -> Step:
    """``shl`` and ``shr``; shifts by more than the width leave zero, or the sign."""
    name = instruction.type
    dtype = type_of(name)
    width = 8 * dtype.itemsize

    def left(a, count):
        moved = a << np.minimum(count, width - 1).astype(dtype)
        return np.where(count < width, moved, dtype.type(0))

    def right(a, count):
        moved = a >> np.minimum(count, width - 1).astype(dtype)
        return moved if name[0] == "s" else np.where(count < width, moved, dtype.type(0))

    compute = left if instruction.root == "shl" else right
    return elementwise(scope, instruction, compute, [name, "u32"], name)


def extract(scope: Scope, instruction: Instruction) -> Step:
    """``bfe``: bits of a field, for s32 with its sign."""
    name = instruction.type

    def compute(a, start, length):
        start, length = (np.minimum(x & 0xFF, 32).astype(np.int64) for x in (start, length))
        left = 64 - np.minimum(start + length, 64)
        if name == "u32":
            return (a.astype(np.uint64) >> start.astype(np.uint64)).astype(np.uint32) & np.where(
                length >= 32, 0xFFFFFFFF, (1 << length) - 1
            ).astype(np.uint32)
        field = (a.astype(np.int64) << left) >> np.minimum(64 - length, 63)
        return np.where(length > 0, field, 0).astype(np.int32)

    if name not in ("u32", "s32"):
        raise PtxError(f"it is not modelled for .{name}")
    return elementwise(scope, instruction, compute, [name, "u32", "u32"], name)


def insert(scope: Scope, instruction: Instruction) -> Step:
    """``bfi.b32``: the low bits of the first operand into a field of the second."""

    def compute(a, b, start, length):
        start, length = (np.minimum(x & 0xFF, 32).astype(np.uint64) for x in (start, length))
        field = ((np.uint64(1) << length) - np.uint64(1)) << start
        return ((b & ~field) | ((a.astype(np.uint64) << start) & field)).astype(np.uint32)

    return elementwise(scope, instruction, compute, ["b32", "b32", "u32", "u32"], "b32")


def logic3(scope: Scope, instruction: Instruction) -> Step:
    """``lop3``: any function of three bits, given as the table of its eight results."""
    *operands, table = instruction.operands
    table = int(table, 0)

    def compute(a, b, c):
        result = np.uint32(0)
        for i in range(8):
            if table >> i & 1:
                parts = (x if i >> (2 - k) & 1 else ~x for k, x in enumerate((a, b, c)))
                result = result | np.bitwise_and.reduce(np.broadcast_arrays(*parts))
        return np.broadcast_to(result, np.broadcast_shapes(a.shape, b.shape, c.shape))

    shorter = _with_operands(instruction, tuple(operands))
    return elementwise(scope, shorter, compute, ["b32"] * 3, "b32")


def permute(scope: Scope, instruction: Instruction) -> Step:
    """``prmt.b32``: four of the eight bytes of two registers, or their signs."""
    if instruction.modifiers != ("b32",):
        raise PtxError("only its general form is modelled")

    def compute(a, b, chooser):
        both = a.astype(np.uint64) | (b.astype(np.uint64) << np.uint64(32))
        result = np.uint32(0)
        for i in range(4):
            nibble = (chooser >> np.uint32(4 * i)) & np.uint32(15)
            byte = (both >> ((nibble & 7) * 8).astype(np.uint64)).astype(np.uint32) & np.uint32(255)
            sign = np.where(byte & 128, np.uint32(255), np.uint32(0))
            result = result | (np.where(nibble & 8, sign, byte) << np.uint32(8 * i))
        return result

    return elementwise(scope, instruction, compute, ["b32"] * 3, "b32")


def _with_operands(instruction: Instruction, operands: tuple) -> Instruction:
    return Instruction(**{**vars(instruction), "operands": operands})


UNORDERED = {"equ": "eq", "neu": "ne", "ltu": "lt", "leu": "le", "gtu": "gt", "geu": "ge"}
COMPARISONS = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
    "gt": np.greater, "ge": np.greater_equal, "num": None, "nan": None,
}  # fmt: skip


def compare(scope: Scope, instruction: Instruction) -> Step:
    """``setp``: a comparison of two numbers; with NaN, false unless its name ends in u."""
    name, modifiers = instruction.type, [x for x in instruction.modifiers if x != "ftz"]
    if len(modifiers) != 2:
        raise PtxError("comparisons joined with a predicate are not modelled")
    kind = modifiers[0]
    function = COMPARISONS[UNORDERED.get(kind, kind)]

    def of_floats(a, b):
        unordered = np.isnan(a) | np.isnan(b)
        if kind in ("num", "nan"):
            return unordered if kind == "nan" else ~unordered
        return function(a, b) | unordered if kind in UNORDERED else function(a, b) & ~unordered

    compute = of_floats if name[0] == "f" else function
    if "ftz" in instruction.modifiers:
        of_flushed = compute
        compute = lambda a, b: of_flushed(flush(a), flush(b))  # noqa: E731
    return elementwise(scope, instruction, compute, [name, name], "pred")


def select(scope: Scope, instruction: Instruction) -> Step:
    """``selp``: the first operand where the predicate holds."""
    first, second = instruction.type, instruction.type
    target, a, b, predicate = instruction.operands
    ordered = _with_operands(instruction, (target, predicate, a, b))
    return elementwise(scope, ordered, np.where, ["pred", first, second], first)


def divide(scope: Scope, instruction: Instruction) -> Step:
    return same_type(quotient if instruction.type[0] == "s" else np.floor_divide, 2, np.divide)(
        scope, instruction
    )


FLOAT_MULTIPLY = {False: same_type(None, 2, np.multiply), True: same_type(None, 3, fma)}
ARITHMETIC = {
    "add": same_type(np.add, 2, np.add),
    "sub": same_type(np.subtract, 2, np.subtract),
    "mul": multiply,
    "mad": partial(multiply, added=True),
    "fma": FLOAT_MULTIPLY[True],
    "div": divide,
    "rem": lambda p, i: same_type(remainder if i.type[0] == "s" else np.remainder, 2)(p, i),
    "min": same_type(np.minimum, 2, np.fmin),
    "max": same_type(np.maximum, 2, np.fmax),
    "neg": same_type(np.negative, 1, np.negative),
    "abs": same_type(np.abs, 1, np.abs),
    "and": same_type(np.bitwise_and, 2),
    "or": same_type(np.bitwise_or, 2),
    "xor": same_type(np.bitwise_xor, 2),
    "not": same_type(np.invert, 1),
    "ex2": same_type(None, 1, _exact_in_fp64(np.exp2)),
    "lg2": same_type(None, 1, _exact_in_fp64(np.log2)),
    "rcp": same_type(None, 1, np.reciprocal),
    "sqrt": same_type(None, 1, np.sqrt),
    "rsqrt": same_type(None, 1, _exact_in_fp64(lambda x: 1 / np.sqrt(x))),
    "shl": shift,
    "shr": shift,
    "bfe": extract,
    "bfi": insert,
    "lop3": logic3,
    "prmt": permute,
    "setp": compare,
    "selp": select,
}
