"""Matrices in the room of a team do not overlap, and products can read their copies fast."""

from __future__ import annotations

import pytest

pytest.importorskip("triton")
from gimp_fast.kernels import pinv_room
from gimp_fast.kernels.pinv_room import BOTH, OPERAND, VALUES, Shape, steps_of


def parts(steps, shape):
    """(name, begin, end) in bytes of all values and copies."""
    half = shape.precision == "fp16"
    for name, size, count, kept in pinv_room._plan(steps, shape):
        for i in range(count):
            begin = pinv_room.place(name, steps, shape) + i * pinv_room.stride(name, steps, shape)
            if kept != OPERAND.value or not half:
                yield name, 4 * begin, 4 * (begin + size)
            if kept != VALUES.value and half:
                copy = 4 * (begin + pinv_room.padded(size))
                yield f"copy of {name}", copy, copy + 2 * size


@pytest.mark.parametrize("precision", ["ieee", "fp16"])
@pytest.mark.parametrize("keeps", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("iterations", [0, 1, 2, 6])
def test_matrices_do_not_overlap(iterations, keeps, precision):
    for m, d in ((1, 1), (37, 13), (256, 64)):
        steps, shape = steps_of(iterations, keeps), Shape(m, d, 64, 64, 32, precision)
        found = sorted(parts(steps, shape), key=lambda part: part[1:])
        ends = [0, *(end for _, _, end in found)]
        assert all(begin >= end for (_, begin, _), end in zip(found, ends, strict=False))
        assert ends[-1] <= 4 * pinv_room.room_size(steps, shape)
        assert all(begin % 16 == 0 for _, begin, _ in found)


def test_in_fp16_a_room_takes_a_seventh_more_than_in_fp32():
    half, single = (
        pinv_room.room_size(steps_of(6, True), Shape(256, 64, 64, 64, 32, precision))
        for precision in ("fp16", "ieee")
    )
    assert half <= 8 / 7 * single
    assert BOTH.value == VALUES.value | OPERAND.value
