"""``mov`` with its packing and unpacking, and ``cvt``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ptx.arithmetic import elementwise
from ptx.errors import PtxError
from ptx.parser import Instruction
from ptx.program import Scope, Step
from ptx.values import (
    bf16_to_f32,
    bits_of,
    f32_to_bf16,
    f32_to_f16,
    f32_to_tf32,
    flush,
    type_of,
)

ROUND_F32 = {"bf16": f32_to_bf16, "f16": f32_to_f16}


def move(scope: Scope, instruction: Instruction) -> Step:
    target, source = instruction.operands
    if isinstance(target, tuple):
        return _unpack(scope, target, scope.slot(source, instruction.type), instruction.type)
    slot = scope.slot(target)
    if isinstance(source, tuple):
        return _pack(scope, slot, source, instruction.type)
    origin = scope.slot(source, instruction.type)
    return lambda machine, mask: machine.put(slot, machine.registers[origin], mask)


def _parts(type_name: str, count: int) -> tuple[np.dtype, np.dtype, int]:
    """Types of the whole and of its parts, and the bits of a part."""
    whole = bits_of(type_of(type_name))
    width = 8 * whole.itemsize // count
    return whole, type_of(f"b{width}"), width


def _pack(scope: Scope, slot: int, source: tuple[str, ...], type_name: str) -> Step:
    whole, _, width = _parts(type_name, len(source))
    slots = [scope.slot(x, f"b{width}") for x in source]

    def step(machine, mask):
        value = np.zeros((1, 1), whole)
        for i, part in enumerate(slots):
            value = value | (machine.registers[part].astype(whole) << whole.type(i * width))
        machine.put(slot, value, mask)

    return step


def _unpack(scope: Scope, target: tuple[str, ...], slot: int, type_name: str) -> Step:
    whole, part, width = _parts(type_name, len(target))
    slots = [(i, scope.slot(x)) for i, x in enumerate(target) if x != "_"]

    def step(machine, mask):
        value = machine.registers[slot]
        for i, one in slots:
            machine.put(one, (value >> whole.type(i * width)).astype(part), mask)

    return step


def convert(scope: Scope, instruction: Instruction) -> Step:
    *modifiers, result, source = instruction.modifiers
    rounding = [x for x in modifiers if x != "ftz"]
    if len(rounding) > 1 or set(rounding) - {"rn", "rna", "rzi", "rni"}:
        raise PtxError(f"modifiers .{'.'.join(rounding)} are not modelled")
    if result in ("bf16x2", "f16x2"):
        return _convert_pair(scope, instruction, ROUND_F32[result[:-2]])
    compute = _conversion(result, source, rounding[0] if rounding else None)
    if "ftz" in modifiers:
        exact = compute
        compute = lambda x: exact(flush(x))  # noqa: E731
    target, operand = instruction.operands
    slot, origin = scope.slot(target), scope.slot(operand, source)
    wide, narrow = scope.bits_of(target), bits_of(type_of(source))

    def step(machine, mask):
        # A register may be wider than the type that is read from it or written to it.
        bits = machine.registers[origin].astype(narrow, copy=False)
        value = compute(bits.view(type_of(source))).view(type_of(result))
        machine.put(slot, _bits(value, wide), mask)

    return step


def _bits(value: np.ndarray, wide: np.dtype) -> np.ndarray:
    if value.itemsize < wide.itemsize:
        return value.astype(wide)
    return value.view(wide)


def _convert_pair(scope: Scope, instruction: Instruction, round_f32: Callable) -> Step:
    """Two fp32 numbers into one register, the first into its upper half."""

    def compute(high, low):
        high, low = (round_f32(x).astype(np.uint32) for x in (high, low))
        return low | (high << np.uint32(16))

    return elementwise(scope, instruction, compute, ["f32", "f32"], "b32")


def _conversion(result: str, source: str, rounding: str | None) -> Callable:
    if source == "bf16" and result == "f32":
        return bf16_to_f32
    if source == "f32" and rounding == "rn" and result in ROUND_F32:
        return ROUND_F32[result]
    if source == "f32" and rounding == "rna" and result == "tf32":
        return f32_to_tf32
    if "bf16" in (source, result) or "tf32" in (source, result):
        raise PtxError(f"a conversion from {source} to {result} is not modelled")
    dtype = type_of(result)
    if source[0] == "f" and result[0] != "f":
        return _to_integer({"rzi": np.trunc, "rni": np.rint}[rounding], dtype)
    return lambda x: x.astype(dtype)


def _to_integer(rounded: Callable, dtype: np.dtype) -> Callable:
    """Saturating, and zero of NaN."""
    limits = np.iinfo(dtype)

    def compute(x):
        value = rounded(np.nan_to_num(x.astype(np.float64), posinf=np.inf, neginf=-np.inf))
        inside = np.clip(value, float(limits.min), float(limits.max))
        whole = np.where(value >= float(limits.max), 0, inside).astype(dtype)
        return np.where(value >= float(limits.max), dtype.type(limits.max), whole)

    return compute
