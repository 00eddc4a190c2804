"""Which function decodes an instruction, by the first part of its name."""

from __future__ import annotations

from ptx import accesses, conversions, warps
from ptx.arithmetic import ARITHMETIC

DECODERS = ARITHMETIC | {
    "mov": conversions.move,
    "cvt": conversions.convert,
    "ld": accesses.load,
    "st": accesses.store,
    "atom": accesses.add_atomically,
    "ldmatrix": accesses.load_matrices,
    "cp": accesses.copy,
    "bar": accesses.barrier,
    "shfl": warps.shuffle,
    "redux": warps.reduce,
    "mma": warps.multiply_matrices,
}
