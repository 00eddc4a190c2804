"""Matrix instructions: what a warp computes, and where each lane has its numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ptx.snippets import compute, run

LANE = np.arange(32)
GROUP, POSITION = LANE // 4, LANE % 4


def ints(*shape, seed=0):
    """Small whole numbers: their products and sums are exact in every dtype."""
    return np.random.default_rng(seed).integers(-8, 9, shape).astype(np.float32)


def pairs(matrix, rows, columns, dtype):
    """Two neighbours of a row in one register of each lane."""
    two = np.stack([matrix[rows, columns], matrix[rows, columns + 1]], 1)
    return torch.from_numpy(two).to(dtype).view(torch.int32).numpy().view(np.uint32)[:, 0]


def product(text, registers):
    """Run an mma whose ten inputs are given; C is in %r3, %r4, %r7 and %r8."""
    a, b, c = registers
    tensors = [np.stack([*a], 1), np.stack([*b, *c[:2]], 1), np.stack([*c[2:]], 1)]
    tensors = [torch.from_numpy(np.ascontiguousarray(x).view(np.int32)) for x in tensors]
    tensors[2] = torch.nn.functional.pad(tensors[2], (0, 2))
    out = torch.zeros(32, 4)
    run(
        "ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%rd90];\n"
        "ld.global.v4.b32 {%r5, %r6, %r7, %r8}, [%rd91];\n"
        "ld.global.v2.b32 {%r9, %r10}, [%rd92];\n"
        f"mma.sync.aligned.{text} {{%r11, %r12, %r13, %r14}}, {{%r1, %r2, %r3, %r4}}, "
        "{%r5, %r6}, {%r7, %r8, %r9, %r10};\n"
        "st.global.v4.b32 [%rd93], {%r11, %r12, %r13, %r14};",
        [*tensors, out],
    )
    return out.numpy()


def of_lanes(matrix):
    """(16, 8) -> (32, 4), as an mma leaves its result."""
    rows = np.stack([GROUP, GROUP, GROUP + 8, GROUP + 8], 1)
    return matrix[rows, (2 * POSITION)[:, None] + [0, 1, 0, 1]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_m16n8k16(dtype):
    a, b, c = ints(16, 16), ints(16, 8, seed=1), ints(16, 8, seed=2)
    column = 2 * POSITION
    of_a = [pairs(a, GROUP + 8 * (i % 2), column + 8 * (i // 2), dtype) for i in range(4)]
    of_b = [pairs(b.T, GROUP, column + 8 * i, dtype) for i in range(2)]
    name = "bf16" if dtype == torch.bfloat16 else "f16"
    found = product(
        f"m16n8k16.row.col.f32.{name}.{name}.f32", [of_a, of_b, of_lanes(c).T.view("u4")]
    )
    np.testing.assert_array_equal(found, of_lanes(a @ b + c))


def test_m16n8k8_reads_ten_bits_of_tf32():
    a, b, c = ints(16, 8), ints(8, 8, seed=1), ints(16, 8, seed=2)
    noisy = (a.view(np.uint32) | np.uint32(0x1FFF)).view(np.float32)
    of_a = [noisy[GROUP + 8 * (i % 2), POSITION + 4 * (i // 2)].view("u4") for i in range(4)]
    of_b = [b[POSITION + 4 * i, GROUP].view("u4") for i in range(2)]
    found = product("m16n8k8.row.col.f32.tf32.tf32.f32", [of_a, of_b, of_lanes(c).T.view("u4")])
    np.testing.assert_array_equal(found, of_lanes(a @ b + c))


@pytest.mark.parametrize("transposed", [False, True], ids=["plain", "trans"])
def test_ldmatrix(transposed):
    """A lane writes a row of eight halves of one of four matrices, and gets two of each."""
    matrices = np.arange(256, dtype=np.uint16).reshape(4, 8, 8)
    body = (
        "mov.b32 %r4, smem;\nmad.lo.s32 %r5, %r90, 16, %r4;\n"
        "st.shared.v4.b32 [%r5], {%r0, %r1, %r2, %r3};\nbar.warp.sync -1;\n"
        f"ldmatrix.sync.aligned.m8n8.x4{'.trans' if transposed else ''}.shared.b16 "
        "{%r10, %r11, %r12, %r13}, [%r5];"
    )
    found = compute(body, matrices.reshape(32, 8).view(np.uint32)).view(np.uint16)
    expected = matrices.swapaxes(1, 2) if transposed else matrices
    expected = expected[:, GROUP[:, None], 2 * POSITION[:, None] + [0, 1]]  # (4, 32, 2)
    np.testing.assert_array_equal(found.reshape(32, 4, 2), expected.swapaxes(0, 1))
