"""How W and the gradient are scaled for the pseudo-inverse, so that fp16 can hold every operand.

A singular value s of A has its x in X and its z in Z, with x = s z. Each step takes x to
p(x) = ¼x(13 − 15x + 7x² − x³). x stays between 0 and 1, where the slope of p is at most 13/4, so:

- The first x is s² times a factor of at most 1. After n steps z is at most the largest p…p(x)/√x:
  1, 1.3, 2.1, 3.7, 6.7, 12, 22 for n = 0 to 6. X, S, T and R are at most 1, 1, 6 and 9.
- A step multiplies an (M, D) matrix by up to 13/4, in between by up to 15.
- A step backwards multiplies each entry of Z's gradient, in the basis of singular vectors, by a
  difference quotient of p, which is at most 13/4. The gradient of X is at most 15/4 z times that
  of the next Z.

``normalised`` brings the norms of W and of the gradient of Z W (the roots of the sums of squares)
to between 2⁹ and 2¹⁰, by a power of two, and gradients of M×M matrices are kept ``SHRINK`` times
smaller. Six steps stay below 2¹⁶ then, about the largest number in fp16: 15 · 13/4 · 2¹⁰ in the
thin steps, and 2²⁰ SHRINK (13/4)⁵ · 15/4 in the classic ones. Longer chains could leave the range.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gimp_fast.kernels.pinv_room import operand

SHRINK = tl.constexpr(2.0**-15)
NORM_BITS = tl.constexpr(10)


@triton.jit
def _exponent(x):
    """n of 2ⁿ ≤ x < 2ⁿ⁺¹, for a normal number."""
    return (x.to(tl.int32, bitcast=True) >> 23) - 127


@triton.jit
def _power(exponent):
    """2ⁿ, exactly; n from −126 to 127."""
    return ((exponent + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _finite(x, at, SIZE: tl.constexpr):
    """Magnitudes, zero for what is infinite or not a number."""
    size = tl.abs(tl.load(x + at, mask=at < SIZE, other=0.0))
    return tl.where(size < float("inf"), size, 0.0)


@triton.jit(noinline=True)
def normalised(x, out, rank, team, SHAPE: tl.constexpr):
    """Write x (M, D) times a power of two, with its copy for products; give what undoes that.

    Entries that are not finite do not count, and stay what they are.
    """
    SIZE: tl.constexpr = SHAPE[0] * SHAPE[1]
    BLOCK: tl.constexpr = 4096
    i = tl.arange(0, BLOCK)
    largest = tl.zeros([BLOCK], tl.float32)
    for start in range(0, SIZE, BLOCK):
        largest = tl.maximum(largest, _finite(x, start + i, SIZE))
    # Squares of the entries themselves could leave the range of fp32.
    exponent = tl.minimum(tl.maximum(_exponent(tl.max(largest, 0)), -126), 126)
    squares = tl.zeros([BLOCK], tl.float32)
    for start in range(0, SIZE, BLOCK):
        size = _finite(x, start + i, SIZE) * _power(-exponent)
        squares += size * size
    exponent += (_exponent(tl.sum(squares, 0)) >> 1) + 1 - NORM_BITS
    exponent = tl.minimum(tl.maximum(exponent, -126), 126)
    factor = _power(-exponent)
    for start in range(rank * BLOCK, SIZE, team * BLOCK):
        at = start + i
        scaled = factor * tl.load(x + at, mask=at < SIZE, other=0.0)
        tl.store(out + at, scaled, mask=at < SIZE)
        if SHAPE[5] == "fp16":
            tl.store(operand(out, SIZE, SHAPE) + at, scaled, mask=at < SIZE)
    return _power(exponent)
