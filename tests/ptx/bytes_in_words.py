"""An array of bytes, read and written in words of 1 to 16 bytes."""

from __future__ import annotations

import numpy as np
from ptx.errors import PtxError

# A word of 16 bytes is moved as a complex number; nothing computes with it.
WORDS = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)} | {16: np.dtype("c16")}


class Bytes:
    """Bytes whose words of any size share their memory."""

    def __init__(self, data: np.ndarray):
        self.data = data
        self._words = {size: data.view(dtype) for size, dtype in WORDS.items()}

    def read(self, index: np.ndarray, size: int) -> np.ndarray:
        """Words at these indices, as (…, size) bytes."""
        words = self._words[size].take(index)
        return words.view(np.uint8).reshape(*index.shape, size)

    def write(self, index: np.ndarray, values: np.ndarray) -> None:
        """Put (…, size) bytes at these indices."""
        size = values.shape[-1]
        words = np.ascontiguousarray(values).view(WORDS[size])
        self._words[size][index] = words[..., 0]


def word_index(offset: np.ndarray, size: int, end: int, what: str) -> np.ndarray:
    """Offsets in bytes -> indices of words of this size; all must lie inside and be aligned."""
    # All bits that any offset has, the sign included: one pass tells of both faults.
    bits = np.bitwise_or.reduce(offset, axis=None)
    if bits < 0 or offset.max(initial=0) > end - size:
        worst = int(offset[(offset < 0) | (offset > end - size)].flat[0])
        raise PtxError(f"{what} of {size} bytes at offset {worst}, outside of {end} bytes")
    if bits & (size - 1):
        raise PtxError(f"{what} of {size} bytes at an address that is not a multiple of it")
    return offset >> (size.bit_length() - 1)
