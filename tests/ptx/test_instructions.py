"""Instructions of the emulator, one family at a time, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ptx.errors import PtxError
from ptx.snippets import compute

GENERATOR = np.random.default_rng(0)
EDGES = [0, 1, 2, 31, 32, 33, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x12345678, 7, 0xFFFFFFF9]
WORDS = np.array(
    [[EDGES[i % 12], EDGES[(5 * i + 3) % 12], EDGES[(7 * i + 1) % 12], i] for i in range(32)],
    np.uint32,
)
FLOATS = np.concatenate(
    [
        GENERATOR.standard_normal((28, 4)),
        [[np.inf, 1, -np.inf, 0], [np.nan, 2, 1, 1], [-0.0, 0, 1, 2], [1e-39, 1, 3e38, 3e38]],
    ]
).astype(np.float32)


def s64(x):
    return x.astype(np.uint32).view(np.int32).astype(np.int64)


def u64(x):
    return x.astype(np.uint32).astype(np.uint64)


def shifted(a, by):
    """As many places to the left as ``by`` says, or to the right where it is negative."""
    pairs = zip(a.tolist(), by.tolist(), strict=True)
    return [x << min(n, 64) if n >= 0 else x >> -n for x, n in pairs]


INTEGERS = {
    "add.s32 %r10, %r0, %r1;": lambda a, b, c: u64(a) + u64(b),
    "sub.s32 %r10, %r0, %r1;": lambda a, b, c: u64(a) - u64(b),
    "mul.lo.s32 %r10, %r0, %r1;": lambda a, b, c: u64(a) * u64(b),
    "mul.hi.u32 %r10, %r0, %r1;": lambda a, b, c: u64(a) * u64(b) >> np.uint64(32),
    "mul.hi.s32 %r10, %r0, %r1;": lambda a, b, c: s64(a) * s64(b) >> 32,
    "mad.lo.s32 %r10, %r0, %r1, %r2;": lambda a, b, c: u64(a) * u64(b) + u64(c),
    "div.s32 %r10, %r0, 7;": lambda a, b, c: np.trunc(s64(a) / 7),
    "rem.s32 %r10, %r0, 7;": lambda a, b, c: np.fmod(s64(a), 7),
    "div.u32 %r10, %r0, 7;": lambda a, b, c: a // 7,
    "min.s32 %r10, %r0, %r1;": lambda a, b, c: np.minimum(s64(a), s64(b)),
    "max.s32 %r10, %r0, %r1;": lambda a, b, c: np.maximum(s64(a), s64(b)),
    "neg.s32 %r10, %r0;": lambda a, b, c: -s64(a),
    "and.b32 %r10, %r0, -4;": lambda a, b, c: a & 0xFFFFFFFC,
    "or.b32 %r10, %r0, %r1;": lambda a, b, c: a | b,
    "xor.b32 %r10, %r0, %r1;": lambda a, b, c: a ^ b,
    "not.b32 %r10, %r0;": lambda a, b, c: ~a,
    "shl.b32 %r10, %r0, %r1;": lambda a, b, c: shifted(a, b.astype(np.int64)),
    "shr.u32 %r10, %r0, %r1;": lambda a, b, c: shifted(a, -b.astype(np.int64)),
    "shr.s32 %r10, %r0, %r1;": lambda a, b, c: shifted(s64(a), -b.astype(np.int64)),
    "bfe.u32 %r10, %r0, 4, 3;": lambda a, b, c: a >> 4 & 7,
    "bfe.s32 %r10, %r0, 28, 4;": lambda a, b, c: s64(a) >> 28,
    "bfi.b32 %r10, %r0, %r1, 8, 4;": lambda a, b, c: b & ~np.uint32(0xF00) | (a & 15) << 8,
    "lop3.b32 %r10, %r0, %r1, %r2, 0xE2;": lambda a, b, c: (a & b) | (~b & c),
    "prmt.b32 %r10, %r0, %r1, 0x0541;": lambda a, b, c: (
        a >> 8 & 255 | (b & 255) << 8 | (b >> 8 & 255) << 16 | (a & 255) << 24
    ),
    "setp.lt.s32 %p1, %r0, %r1; selp.b32 %r10, %r2, 5, %p1;": lambda a, b, c: np.where(
        s64(a) < s64(b), c, 5
    ),
    "setp.lt.u32 %p1, %r0, %r1; not.pred %p2, %p1; selp.b32 %r10, 1, 0, %p2;": (
        lambda a, b, c: a >= b
    ),
    "mov.b32 {%rs1, %rs2}, %r0; mov.b32 %r10, {%rs2, %rs1};": lambda a, b, c: a >> 16 | a << 16,
    "cvt.s64.s32 %rd1, %r0; shr.s64 %rd1, %rd1, 4; cvt.u32.u64 %r10, %rd1;": lambda a, b, c: (
        s64(a) >> 4
    ),
    "mul.wide.s32 %rd1, %r0, %r1; shr.u64 %rd2, %rd1, 32; cvt.u32.u64 %r10, %rd2;": (
        lambda a, b, c: s64(a) * s64(b) >> 32
    ),
    "cvt.u16.u32 %rs1, %r0; cvt.s32.s16 %r10, %rs1;": lambda a, b, c: a.astype(np.int16),
    "redux.sync.add.s32 %r10, %r0, -1;": lambda a, b, c: np.full(32, s64(a).sum()),
    "redux.sync.max.s32 %r10, %r0, -1;": lambda a, b, c: np.full(32, s64(a).max()),
}  # fmt: skip


def lines(text):
    return "\n".join(part + ";" for part in text.split(";") if part.strip())


@pytest.mark.parametrize("text", INTEGERS)
def test_integers(text):
    found = compute(lines(text), WORDS)[:, 0]
    expected = INTEGERS[text](*WORDS.T[:3])
    expected = [int(x) % 2**32 for x in expected]
    assert found.tolist() == expected


def exact(x):
    """Rounded once to fp32."""
    return x.astype(np.float32)


def double(x):
    return x.astype(np.float64)


def nearest(x, dtype):
    """As torch rounds it to the dtype."""
    return torch.from_numpy(x.copy()).to(dtype).float().numpy()


FLOATING = {
    "add.f32 %r10, %r0, %r1;": lambda a, b, c: a + b,
    "sub.f32 %r10, %r0, %r1;": lambda a, b, c: a - b,
    "mul.f32 %r10, %r0, %r1;": lambda a, b, c: a * b,
    "fma.rn.f32 %r10, %r0, %r1, %r2;": lambda a, b, c: exact(double(a) * b + c),
    "fma.rn.ftz.f32 %r10, %r0, 0f3F000000, 0f00000000;": lambda a, b, c: np.where(
        np.abs(a) < 1e-38, 0 * a, exact(a / 2)
    ),
    "div.full.f32 %r10, %r0, %r1;": lambda a, b, c: a / b,
    "max.f32 %r10, %r0, %r1;": np.fmax,
    "min.f32 %r10, %r0, %r1;": np.fmin,
    "neg.f32 %r10, %r0;": lambda a, b, c: -a,
    "abs.f32 %r10, %r0;": lambda a, b, c: np.abs(a),
    "ex2.approx.f32 %r10, %r0;": lambda a, b, c: exact(np.exp2(double(a))),
    "lg2.approx.f32 %r10, %r0;": lambda a, b, c: exact(np.log2(double(a))),
    "sqrt.rn.f32 %r10, %r0;": lambda a, b, c: np.sqrt(a),
    "rcp.rn.f32 %r10, %r0;": lambda a, b, c: 1 / a,
    "rsqrt.approx.f32 %r10, %r0;": lambda a, b, c: exact(1 / np.sqrt(double(a))),
    "cvt.rn.f16.f32 %rs1, %r0; cvt.f32.f16 %r10, %rs1;": (
        lambda a, b, c: nearest(a, torch.half)
    ),
    "cvt.rn.bf16.f32 %rs1, %r0; cvt.f32.bf16 %r10, %rs1;": (
        lambda a, b, c: nearest(a, torch.bfloat16)
    ),
    "cvt.rn.bf16x2.f32 %r9, %r0, %r1; mov.b32 {%rs1, _}, %r9; cvt.f32.bf16 %r10, %rs1;": (
        lambda a, b, c: nearest(b, torch.bfloat16)
    ),
    "cvt.rn.f16x2.f32 %r9, %r0, %r1; mov.b32 {_, %rs1}, %r9; cvt.f32.f16 %r10, %rs1;": (
        lambda a, b, c: nearest(a, torch.half)
    ),
    "cvt.rzi.s32.f32 %r9, %r1; cvt.rn.f32.s32 %r10, %r9;": lambda a, b, c: np.trunc(b) + 0.0,
    "setp.ltu.f32 %p1, %r0, %r1; selp.f32 %r10, %r1, %r2, %p1;": (
        lambda a, b, c: np.where(~(a >= b), b, c)
    ),
    "setp.num.f32 %p1, %r0, %r0; selp.f32 %r10, %r1, %r2, %p1;": (
        lambda a, b, c: np.where(np.isnan(a), c, b)
    ),
    "setp.ne.f32 %p1, %r0, %r0; selp.f32 %r10, %r1, %r2, %p1;": lambda a, b, c: c,
}  # fmt: skip


@pytest.mark.parametrize("text", FLOATING)
def test_floats(text):
    found = compute(lines(text), FLOATS, np.float32)[:, 0]
    with np.errstate(all="ignore"):
        function = FLOATING[text]
        inputs = FLOATS.T[:2] if isinstance(function, np.ufunc) else FLOATS.T[:3]
        expected = function(*inputs)
    np.testing.assert_array_equal(found, expected)


def test_tf32_is_rounded_to_ten_bits():
    x = np.full((32, 1), 1 + 2.0**-11 + 2.0**-20, np.float32)
    found = compute("cvt.rna.tf32.f32 %r10, %r0;", x, np.float32)[:, 0]
    assert (found == 1 + 2.0**-10).all()


@pytest.mark.parametrize(
    ("mode", "source"),
    [
        ("bfly.b32 %r10, %r0, 5, 31", lambda lane: lane ^ 5),
        ("up.b32 %r10, %r0, 3, 0", lambda lane: np.where(lane >= 3, lane - 3, lane)),
        ("down.b32 %r10, %r0, 3, 31", lambda lane: np.where(lane < 29, lane + 3, lane)),
        ("idx.b32 %r10, %r0, %r3, 31", lambda lane: (3 * lane) % 32),
        ("bfly.b32 %r10, %r0, 5, 6175", lambda lane: lane ^ 5),
        ("bfly.b32 %r10, %r0, 9, 6151", lambda lane: np.where(lane & 8, lane ^ 9, lane)),
    ],
    ids=["bfly", "up", "down", "idx", "bfly-in-eights", "bfly-out-of-eights"],
)  # fmt: skip
def test_shuffles(mode, source):
    lane = np.arange(64)
    inputs = np.stack([100 + lane, lane, lane, 3 * lane], 1).astype(np.uint32)
    found = compute(f"shfl.sync.{mode}, -1;", inputs, threads=64)[:, 0]
    assert found.tolist() == (100 + lane // 32 * 32 + source(lane % 32)).tolist()


def test_an_unknown_instruction_is_named():
    with pytest.raises(PtxError, match=r"'wgmma' is not modelled; line \d+: wgmma.fence"):
        compute("wgmma.fence.sync.aligned;", WORDS)


@pytest.mark.parametrize(
    "text",
    ["add.f16 %rs1, %rs2, %rs3;", "cvt.rz.f32.f64 %r10, %rd1;", "bar.sync 1, 64;",
     "setp.lt.and.s32 %p1, %r0, %r1, %p2;", "add.sat.s32 %r10, %r0, %r1;",
     "atom.global.add.u32 %r10, [%rd90], 1;", "atom.global.gpu.release.add.f32 %r10, [%rd90], 1;",
     "atom.shared.gpu.release.add.u32 %r10, [%r90], 1;",
     "mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {%r1}, {%r1}, {%r1}, {%r1};"],
)  # fmt: skip
def test_an_unknown_form_is_refused(text):
    with pytest.raises(PtxError, match="is not modelled; line"):
        compute(text, WORDS)
