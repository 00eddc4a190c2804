"""Every GPU kernel on small ragged inputs, forward and backward: what a sanitizer can walk through.

python tests/kernels/small_cases.py

Without a GPU the Triton kernels are interpreted, which proves the cases and not the kernels. The
results are held to the fp64 references, so that a run that is clean has also computed something.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch
from torch import Tensor

CUDA = torch.cuda.is_available()
if not CUDA:
    os.environ.setdefault("TRITON_INTERPRET", "1")

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
# Rows and channels: one; odd; rows that a group of lanes does not fill.
ROWS = [(1, 1), (63, 3), (257, 16), (130, 1000), (9, 1024)]


def attention_case(lengths: tuple[int, ...], marks: int, dim: int, dtype: torch.dtype) -> float:
    """Largest error of the output and the gradients, relative to their norm or to one."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, sum(lengths), 3, 2, dim)
    qkv = torch.randn(shape, generator=generator, dtype=torch.float64).to(DEVICE)
    weight = torch.randn(shape[0], 2, shape[1], dim, generator=generator, dtype=torch.float64)
    bounds = None
    if len(lengths) > 1:
        bounds = torch.tensor([0, *lengths]).cumsum(0).int()

    def attend(function, dtype, bounds, **options) -> list[Tensor]:
        q, k, v = (x.transpose(1, 2).to(dtype).requires_grad_() for x in qkv.unbind(2))
        out = function(q, k, v, num_landmarks=marks, cu_seqlens=bounds, **options)
        grads = torch.autograd.grad(out, (q, k, v), weight.to(DEVICE, dtype))
        return [out.detach(), *grads]

    expected = attend(nystrom_attention_reference, torch.float64, bounds)
    on_device = None if bounds is None else bounds.to(DEVICE)
    found = attend(nystrom_attention, dtype, on_device, backend="triton")
    return max(
        float((a.double() - b).norm() / b.norm().clamp_min(1))
        for a, b in zip(found, expected, strict=True)
    )


def masked_l1_case(rows: int, channels: int, dtype: torch.dtype) -> float:
    """Relative error of the loss, or of its gradient where that is larger."""
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
    error = (grad.double() - expected_grad).norm() / expected_grad.norm()
    return max(float((loss.detach() - expected.detach()).abs() / expected.detach()), float(error))


def cases() -> Iterator[tuple[str, float, float]]:
    """(name, error, allowed error)."""
    for lengths, marks, dim in ATTENTION:
        for dtype in DTYPES:
            name = f"nystrom_attention N{'+'.join(map(str, lengths))}-M{marks}-D{dim}-{dtype}"
            yield name, attention_case(lengths, marks, dim, dtype), TOLERANCE[dtype]
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
