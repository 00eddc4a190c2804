"""Types of PTX as types of NumPy, immediate values, and the roundings that NumPy does not have.

A register holds bits: an unsigned array of its width, or bool for a predicate. An instruction views
them as its type.
"""

from __future__ import annotations

import numpy as np
from ptx.errors import PtxError

TYPES = {
    f"{kind}{width}": np.dtype(f"{letter}{width // 8}")
    for kind, letter in {"b": "u", "u": "u", "s": "i"}.items()
    for width in (8, 16, 32, 64)
} | {"f16": np.dtype("f2"), "f32": np.dtype("f4"), "f64": np.dtype("f8"), "pred": np.dtype(bool)}
# Types without one of NumPy are kept as their bits.
TYPES |= {"bf16": TYPES["b16"]} | {x: TYPES["b32"] for x in ("tf32", "bf16x2", "f16x2")}
BITS = {1: np.dtype("u1"), 2: np.dtype("u2"), 4: np.dtype("u4"), 8: np.dtype("u8")}


def type_of(name: str) -> np.dtype:
    """The NumPy type of a PTX type; those without one (bf16, tf32) are their bits."""
    try:
        return TYPES[name]
    except KeyError:
        raise PtxError(f"type .{name} is not modelled") from None


def bits_of(dtype: np.dtype) -> np.dtype:
    """The type in which a register holds such a value."""
    return dtype if dtype.kind == "b" else BITS[dtype.itemsize]


def immediate(text: str, dtype: np.dtype) -> np.ndarray:
    """A number in the text as (1, 1) bits of this type."""
    if dtype.kind == "b":
        return np.array([[int(text, 0) != 0]])
    value = int(text[2:], 16) if text[:2] in ("0f", "0F", "0d", "0D") else int(text, 0)
    storage = bits_of(dtype)
    return np.array([[value & (1 << 8 * storage.itemsize) - 1]], storage)


def bf16_to_f32(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def f32_to_bf16(x: np.ndarray) -> np.ndarray:
    """Bits of the nearest bf16, ties to even."""
    bits = x.view(np.uint32)
    up = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    rounded = ((bits + up) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FFF), rounded)


def f32_to_f16(x: np.ndarray) -> np.ndarray:
    """Bits of the nearest fp16, ties to even."""
    return x.astype(np.float16).view(np.uint16)


def f32_to_tf32(x: np.ndarray) -> np.ndarray:
    """Bits of the nearest TF32, ties away from zero; the 13 bits that it lacks are zero."""
    bits = x.view(np.uint32)
    rounded = (bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(x), rounded, bits)


def flush(x: np.ndarray) -> np.ndarray:
    """Subnormal numbers become zero of their sign (``.ftz``)."""
    return np.where(np.abs(x) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), x), x)


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a·b + c of fp32: exact product, sum rounded to fp64 and then to fp32."""
    total = np.multiply(a, b, dtype=np.float64)
    return (total + c).astype(np.float32)
