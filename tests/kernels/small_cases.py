"""Every GPU kernel on small ragged inputs, forward and backward, for a sanitizer to watch.

python tests/kernels/small_cases.py

Without a GPU the Triton kernels are interpreted, which tests the cases and not the kernels. The
results are compared with the fp64 references, so that a clean run has also computed something.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.nn.functional import conv2d

CUDA = torch.cuda.is_available()
if not CUDA:
    os.environ.setdefault("TRITON_INTERPRET", "1")

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from builders.attention import (  # noqa: E402
    loss_weight,
    outputs_and_gradients,
    random_projections,
    split,
)
from builders.errors import attention_sizes, relative_error  # noqa: E402

from gimp_fast.kernels import token_conv  # noqa: E402
from gimp_fast.ops import available_backends, masked_l1_loss, nystrom_attention  # noqa: E402
from gimp_fast.reference.masked_l1 import masked_l1_reference  # noqa: E402
from gimp_fast.reference.nystrom_attention import nystrom_attention_reference  # noqa: E402

DEVICE = "cuda" if CUDA else "cpu"
# The interpreter computes bf16 wrongly.
DTYPES = (torch.float32, torch.float16, torch.bfloat16) if CUDA else (torch.float32,)
TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 6e-2}
# Lengths of the bags, packed where there are several; M; D. One row; fewer rows than landmarks;
# M dividing N and not; a chunk and a bit; a head dim that is padded.
ATTENTION = [
    ((1,), 16, 16),
    ((7,), 16, 13),
    ((16,), 16, 64),
    ((257,), 32, 64),
    ((130, 1, 40), 16, 32),
    ((65, 64, 63, 2), 24, 96),
]
# Lengths of the bags, packed where there are several; D; K. Shorter than the filter; a tile and a
# bit; a head dim that is padded and of two tiles; a filter whose gradient takes two programs.
CONVOLUTIONS = [
    ((7,), 16, 33),
    ((129,), 64, 33),
    ((65, 0, 1, 30), 96, 5),
    ((40, 40), 13, 67),
]
# Rows and channels: one; odd; rows that a group of lanes does not fill.
ROWS = [(1, 1), (63, 3), (257, 16), (130, 1000), (9, 1024)]


def attention_case(lengths: tuple[int, ...], marks: int, dim: int, dtype: torch.dtype) -> float:
    """Largest relative error of the output and the gradients."""
    qkv = random_projections(1, sum(lengths), 2, dim).to(DEVICE)
    bounds = torch.tensor([0, *lengths]).cumsum(0).int() if len(lengths) > 1 else None
    exact, options = split(qkv), {"num_landmarks": marks, "cu_seqlens": bounds}
    expected = outputs_and_gradients(nystrom_attention_reference, exact, **options)
    if bounds is not None:
        options["cu_seqlens"] = bounds.to(DEVICE)
    inputs = split(qkv, dtype)
    found = outputs_and_gradients(nystrom_attention, inputs, backend="triton", **options)
    sizes = attention_sizes(expected, exact, loss_weight(exact))
    return max(map(relative_error, found, expected, sizes))


def token_conv_case(lengths: tuple[int, ...], dim: int, kernel: int, dtype: torch.dtype) -> float:
    """Largest relative error of the output and the gradients; needed rows must be the same."""
    heads, generator = 2, torch.Generator().manual_seed(0)
    v, add, grad = (
        torch.randn(1, sum(lengths), heads, dim, generator=generator).to(DEVICE, dtype)
        for _ in range(3)
    )
    v, add, grad = (x.transpose(1, 2) for x in (v, add, grad))
    weight = torch.randn(heads, 1, kernel, 1, generator=generator).to(DEVICE)
    bounds = torch.tensor([0, *lengths]).cumsum(0).int().to(DEVICE)
    packed = bounds if len(lengths) > 1 else None
    found = [
        token_conv.token_conv_fwd(v, weight, add, packed),
        token_conv.token_conv_fwd(grad, weight, None, packed, flip=True),
        token_conv.token_conv_weight_grad(grad, v, packed, kernel),
    ]
    index = torch.arange(v.shape[2], device=DEVICE)
    rows = [
        token_conv.token_conv_rows_fwd(v, weight, add, index, bounds),
        *token_conv.token_conv_rows_bwd(grad, v, weight, index, bounds),
    ]
    if not all(map(torch.equal, found, rows)):
        return float("inf")
    wide = [x.detach().double().requires_grad_() for x in (v, weight)]
    pad = (kernel // 2, 0)
    parts = [part for part in wide[0].split(lengths, 2) if part.shape[2]]
    convolved = [conv2d(part, wide[1], padding=pad, groups=heads) for part in parts]
    out = add.double() + torch.cat(convolved, 2)
    expected = [out, *torch.autograd.grad(out, wide, grad.double())]
    return max(map(relative_error, found, expected))


def masked_l1_case(rows: int, channels: int, dtype: torch.dtype) -> float:
    """Relative error of the loss or of its gradient, whichever is larger."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(rows, channels, generator=generator).to(dtype) for _ in range(2))
    mask = torch.rand(rows, generator=generator) < 0.5
    mask[0] = True
    x, y, mask = x.to(DEVICE).requires_grad_(), y.to(DEVICE), mask.to(DEVICE)
    loss = masked_l1_loss(x, y, mask, backend="cuda")
    (grad,) = torch.autograd.grad(loss, x)
    wide = x.detach().double().requires_grad_()
    expected = masked_l1_reference(wide, y.double(), mask)
    (expected_grad,) = torch.autograd.grad(expected, wide)
    return max(relative_error(loss, expected), relative_error(grad, expected_grad))


def cases() -> Iterator[tuple[str, float, float]]:
    """(name, error, allowed error)."""
    for lengths, marks, dim in ATTENTION:
        for dtype in DTYPES:
            name = f"nystrom_attention N{'+'.join(map(str, lengths))}-M{marks}-D{dim}-{dtype}"
            yield name, attention_case(lengths, marks, dim, dtype), TOLERANCE[dtype]
    for lengths, dim, kernel in CONVOLUTIONS:
        for dtype in DTYPES:
            name = f"token_conv N{'+'.join(map(str, lengths))}-D{dim}-K{kernel}-{dtype}"
            yield name, token_conv_case(lengths, dim, kernel, dtype), TOLERANCE[dtype]
    if available_backends()["cuda"] != "available":
        print(f"masked_l1 is left out: {available_backends()['cuda']}")
        return
    for rows, channels in ROWS:
        for dtype in (*DTYPES, torch.float64):
            name = f"masked_l1 {rows}x{channels}-{dtype}"
            yield name, masked_l1_case(rows, channels, dtype), TOLERANCE.get(dtype, 1e-6)


def main() -> int:
    wrong = 0
    for name, error, allowed in cases():
        wrong += not error <= allowed
        print(f"{'ok   ' if error <= allowed else 'WRONG'} {name}: {error:.1e}", flush=True)
    if CUDA:
        torch.cuda.synchronize()
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
