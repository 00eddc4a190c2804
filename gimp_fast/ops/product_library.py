"""Which of torch's two CPU libraries multiplies large fp32 matrices, and products by oneDNN.

torch gives fp32 products to its BLAS, which is MKL on x86. MKL runs at half speed or less on AMD's
processors. Its other library, oneDNN, generates its own AVX-512 code on any processor, but Intel's
run MKL up to twice as fast.

A table by vendor and instruction set decides, not a measurement at the first product: the two
libraries round differently, so a measurement that a busy moment turns would give a repeated run
other bits. ``gimp-fast doctor`` measures both and says where the table is wrong;
``GIMP_FAST_PRODUCTS`` then overrules it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from gimp_fast import processor
from gimp_fast.errors import GimpError, one_of

ENVIRONMENT_VARIABLE = "GIMP_FAST_PRODUCTS"
TORCH, ONEDNN = "torch", "onednn"
# (vendor, torch's instruction set) -> the faster library, where it was measured. oneDNN with AVX2
# is slower at gradients of weights, also on AMD's processors.
FASTER = {
    ("AuthenticAMD", "AVX512"): ONEDNN,
    ("AuthenticAMD", "AVX2"): TORCH,
    ("GenuineIntel", "AVX512"): TORCH,
}
# The operator is private: another torch may change it.
SCHEMAS = {
    "default": "(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, str? algorithm)",
    "binary": "(Tensor X, Tensor other, Tensor W, Tensor? B, str attr)",
}


class Choice(NamedTuple):
    """The library of large products, ``"torch"`` or ``"onednn"``, and why."""

    library: str
    reason: str


def choice() -> Choice:
    """The library that multiplies large fp32 matrices on this CPU.

    Raises:
        GimpError: ``GIMP_FAST_PRODUCTS`` has an unknown value, or names what cannot run here.
    """
    if not torch.backends.mkldnn.enabled:
        return Choice(TORCH, "torch.backends.mkldnn is switched off")
    return _lasting_choice()


@cache
def _lasting_choice() -> Choice:
    return choose(
        os.environ.get(ENVIRONMENT_VARIABLE) or "auto",
        processor.vendor(),
        torch.backends.cpu.get_cpu_capability(),
        why_no_onednn(),
    )


def choose(requested: str, vendor: str, instructions: str, no_onednn: str | None) -> Choice:
    """The choice for a processor.

    Args:
        requested: ``"auto"``, ``"torch"`` or ``"onednn"``.
        vendor: as :func:`gimp_fast.processor.vendor` spells it.
        instructions: torch's instruction set, e.g. ``"AVX512"``.
        no_onednn: why oneDNN cannot run; None if it can.
    """
    known = ("auto", TORCH, ONEDNN)
    if requested not in known:
        expected = one_of(requested, known)
        raise GimpError(f"{ENVIRONMENT_VARIABLE}={requested} is unknown; expected {expected}")
    if requested == ONEDNN and no_onednn:
        raise GimpError(f"{ENVIRONMENT_VARIABLE}={requested} cannot run: {no_onednn}")
    if requested != "auto":
        return Choice(requested, f"{ENVIRONMENT_VARIABLE}={requested}")
    where = f"{vendor or 'an unknown vendor'} with {instructions}"
    if (vendor, instructions) not in FASTER:
        return Choice(TORCH, f"the table has no entry for {where}")
    library = FASTER[vendor, instructions]
    if library == ONEDNN and no_onednn:
        return Choice(TORCH, no_onednn)
    return Choice(library, f"the table's choice for {where}")


def why_no_onednn() -> str | None:
    """Why oneDNN cannot multiply here; None if it can."""
    if not torch.backends.mkldnn.is_available():
        return "this torch is built without oneDNN"
    operator = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    found = {name: getattr(operator, name, None) for name in SCHEMAS}
    if any(SCHEMAS[name] not in str(getattr(f, "_schema", "")) for name, f in found.items()):
        return f"torch {torch.__version__} has no operator for oneDNN's products that is known here"
    return None


def onednn_product(x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """x wᵀ + bias, for x (..., k), w (n, k) and bias (n,)."""
    return torch.ops.mkldnn._linear_pointwise(x, w, bias, "none", [], "")


def onednn_sum(total: Tensor, x: Tensor, w: Tensor) -> Tensor:
    """total + x wᵀ, for total (..., n), x (..., k) and w (n, k)."""
    return torch.ops.mkldnn._linear_pointwise(x, total, w, None, "add")


def speeds(m: int, k: int, n: int, budget_s: float = 0.2) -> dict[str, float]:
    """Gflop/s of each library that can run here, by the fastest of interleaved turns.

    A layer's product (m, k) × (k, n) in fp32 is timed, and those of its two gradients.

    Args:
        m, k, n: rows, inputs and outputs of the layer.
        budget_s: no turn starts later, except the first two.
    """
    generator = torch.Generator().manual_seed(0)
    x, w, grad = (torch.randn(s, generator=generator) for s in ((m, k), (n, k), (m, n)))
    calls: dict[str, list[Callable[[], Tensor]]] = {
        TORCH: [lambda: x @ w.t(), lambda: grad @ w, lambda: grad.t() @ x]
    }
    if why_no_onednn() is None:
        calls[ONEDNN] = [
            lambda: onednn_product(x, w),
            lambda: onednn_product(grad, w.t()),
            lambda: onednn_product(x.t().contiguous(), grad.t()),
        ]
    best = {library: [float("inf")] * 3 for library in calls}
    begin, turns = time.perf_counter(), 0
    # The first turn loads the libraries.
    while turns < 2 or time.perf_counter() - begin < budget_s:
        for library, products in calls.items():
            taken = map(_seconds, products)
            best[library] = [min(pair) for pair in zip(best[library], taken, strict=True)]
        turns += 1
    return {library: 6e-9 * m * k * n / sum(taken) for library, taken in best.items()}


def _seconds(call: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
