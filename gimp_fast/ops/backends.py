"""Which implementation of an operator runs: names, reasons and the environment variable."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence

import torch

from gimp_fast import native
from gimp_fast.errors import GimpError
from gimp_fast.native import AVAILABLE

BACKENDS = ("reference", "torch", "native", "cuda", "triton")
ENVIRONMENT_VARIABLE = "GIMP_FAST_BACKEND"


def available_backends() -> dict[str, str]:
    """Say for every backend ``"available"`` or the reason it is not, on this machine, now."""
    return {
        "reference": AVAILABLE,
        "torch": AVAILABLE,
        "native": native.load().cpu,
        "cuda": _cuda_status(),
        "triton": _triton_status(),
    }


def resolve_backend(
    requested: str, supported: Sequence[str], *, op: str, device: torch.device
) -> str:
    """Choose the backend of one call.

    Args:
        requested: ``"auto"`` or a name from ``BACKENDS``. ``GIMP_FAST_BACKEND`` replaces ``"auto"``
            when it is set.
        supported: the backends that `op` has, the preferred first.
        op: public name of the operator, for messages.
        device: where the tensors of this call are.

    Returns:
        The name of a backend that can run here. ``"auto"`` passes over a backend only for missing
        hardware or a missing build, and never picks Triton's interpreter.

    Raises:
        ValueError: unknown name, here or in ``GIMP_FAST_BACKEND``.
        RuntimeError: a backend that was named cannot run `op` on `device`; the message has the
            reason.
    """
    name, origin = requested, f"backend={requested!r}"
    if requested == "auto":
        name = os.environ.get(ENVIRONMENT_VARIABLE) or "auto"
        origin = f"{ENVIRONMENT_VARIABLE}={name}"
    if name != "auto" and name not in BACKENDS:
        raise ValueError(f"{op}: {origin} is unknown; expected one of {('auto', *BACKENDS)}")

    reasons = {}
    for candidate in supported if name == "auto" else (name,):
        reason = _why_not(candidate, supported, device, automatic=name == "auto")
        if reason is None:
            return candidate
        reasons[candidate] = reason
    if name != "auto":
        raise RuntimeError(f"{op}: {origin} cannot run: {reasons[name]}")
    told = "; ".join(f"{candidate}: {reason}" for candidate, reason in reasons.items())
    raise RuntimeError(f"{op}: no backend can run on {device}: {told}")


# What torch.compiler.assume_constant_result sets: the choice is made while tracing, so that
# fullgraph=True does not follow the look at the environment. The decorator itself imports the whole
# compiler, and with it triton.
resolve_backend._dynamo_marked_constant = True


def _why_not(
    name: str, supported: Sequence[str], device: torch.device, automatic: bool
) -> str | None:
    if name not in supported:
        return f"this operator has no {name} backend, it has {', '.join(supported)}"
    if name in ("reference", "torch"):
        return None
    if name == "native" and device.type != "cpu":
        return f"it computes on the CPU and the tensors are on {device}"
    if name == "cuda" and device.type != "cuda":
        return f"it computes on a CUDA GPU and the tensors are on {device}"
    if name == "triton" and device.type != "cuda":
        if not _triton_interprets():
            return (
                f"it computes on a GPU and the tensors are on {device}; "
                "set TRITON_INTERPRET=1 to interpret it, slowly, on the CPU"
            )
        if automatic:
            return "the interpreter is slow and runs only when backend='triton' is named"
    status = available_backends()[name]
    return None if status == AVAILABLE else status


def _cuda_status() -> str:
    status = native.load().cuda
    if status == AVAILABLE and not torch.cuda.is_available():
        return "no CUDA GPU is visible to torch"
    return status


def _triton_interprets() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def _triton_status() -> str:
    # Looked up, not imported: a machine without Triton must import and run everything else.
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if not torch.cuda.is_available() and not _triton_interprets():
        return "no CUDA GPU is visible to torch; set TRITON_INTERPRET=1 to interpret on the CPU"
    return AVAILABLE


def choose_device(name: str) -> torch.device:
    """The device called `name`; ``"auto"`` is a GPU if there is one. GimpError if there is none."""
    asked = name
    if name == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(asked)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise GimpError(f"device '{name}' cannot be used: {error}") from error
    return device
