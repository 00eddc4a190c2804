"""Which implementation of an operator runs: its name, or the reason why it cannot."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence

import torch

from gimp_fast import native
from gimp_fast.errors import GimpError, one_line, one_of
from gimp_fast.native import AVAILABLE
from gimp_fast.ops import gpus

BACKENDS = ("reference", "torch", "native", "cuda", "triton")
ENVIRONMENT_VARIABLE = "GIMP_FAST_BACKEND"


def available_backends() -> dict[str, str]:
    """For every backend, ``"available"`` or the reason why it cannot run here now."""
    return {name: _status(name) for name in BACKENDS}


def _status(name: str, device: torch.device | None = None) -> str:
    """``"available"``, or why a backend cannot run: on this device, or on any that is here."""
    # Only that of one backend: a small layer is called thousands of times a second.
    if name == "native":
        return native.load().cpu
    if name == "cuda":
        return _cuda_status(device)
    return _triton_status(device) if name == "triton" else AVAILABLE


def resolve_backend(
    requested: str, supported: Sequence[str], *, op: str, device: torch.device
) -> str:
    """The name of a backend that can run this call.

    Args:
        requested: ``"auto"`` or a name from ``BACKENDS``. If ``GIMP_FAST_BACKEND`` is set, it
            replaces ``"auto"``.
        supported: the backends that `op` has, in order of preference.
        op: public name of the operator, for messages.
        device: where the tensors of this call are.

    Returns:
        For ``"auto"``, the first backend whose hardware and build are there, but never Triton's
        interpreter.

    Raises:
        ValueError: unknown name, here or in ``GIMP_FAST_BACKEND``.
        RuntimeError: a backend was named that cannot run `op` on `device`; the message has the
            reason.
    """
    name, origin = requested, f"backend={requested!r}"
    if requested == "auto":
        name = _from_environment()
        origin = f"{ENVIRONMENT_VARIABLE}={name}"
    if name != "auto" and name not in BACKENDS:
        raise ValueError(f"{op}: {origin} is unknown; expected {one_of(name, ('auto', *BACKENDS))}")

    reasons = {}
    for candidate in supported if name == "auto" else (name,):
        reason = _why_not(candidate, supported, device, automatic=name == "auto")
        if reason is None:
            return candidate
        reasons[candidate] = reason
    if name != "auto":
        raise RuntimeError(f"{op}: {origin} cannot run: {reasons[name]}")
    listed = "; ".join(f"{candidate}: {reason}" for candidate, reason in reasons.items())
    raise RuntimeError(f"{op}: no backend can run on {device}: {listed}")


def backend_of_a_part(supported: Sequence[str], *, device: torch.device) -> str | None:
    """A backend for one part of an operator, or None where torch computes that part too.

    Args:
        supported: the backends that the part has, in order of preference.
        device: where the tensors are.

    Returns:
        The first that can run. If ``GIMP_FAST_BACKEND`` is set, only the one of that name: a name
        that this part does not have is meant for other operators.
    """
    name = _from_environment()
    for candidate in supported:
        if name in ("auto", candidate) and not _why_not(candidate, supported, device, True):
            return candidate
    return None


# Makes torch.compile choose the backend while it traces, so that fullgraph=True does not trace
# reads of the environment. torch.compiler.assume_constant_result sets the same attribute, but that
# decorator imports the whole compiler, and with it triton.
resolve_backend._dynamo_marked_constant = True
backend_of_a_part._dynamo_marked_constant = True


def _from_environment() -> str:
    return os.environ.get(ENVIRONMENT_VARIABLE) or "auto"


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
    status = _status(name, device)
    return None if status == AVAILABLE else status


def _cuda_status(device: torch.device | None) -> str:
    status = native.load().cuda
    if status != AVAILABLE:
        return status
    if not torch.cuda.is_available():
        return "no CUDA GPU is visible to torch"
    return _gpu_status("cuda", device)


def _gpu_status(name: str, device: torch.device | None) -> str:
    reason = gpus.why_on_no_gpu(name) if device is None else gpus.why_not(name, device)
    return reason or AVAILABLE


def _triton_interprets() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def _triton_status(device: torch.device | None) -> str:
    # Only looked up, not imported: everything else must run on a machine without Triton.
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if _triton_interprets():
        return AVAILABLE
    if not torch.cuda.is_available():
        return "no CUDA GPU is visible to torch; set TRITON_INTERPRET=1 to interpret on the CPU"
    return _gpu_status("triton", device)


DEVICES = "auto, cpu, cuda, cuda:N or mps"


def choose_device(name: str) -> torch.device:
    """The device called `name`; ``"auto"`` is a GPU if there is one, else the CPU.

    Raises:
        GimpError: there is no such device, or it cannot be used here.
    """
    resolved = name
    if name == "auto":
        resolved = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(resolved)
    except (RuntimeError, TypeError) as error:
        raise GimpError(f"device '{name}' cannot be used: expected {DEVICES}") from error
    why = _why_no_device(device)
    if why is not None:
        raise GimpError(f"device '{name}' cannot be used: {why}; expected {DEVICES}")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise GimpError(f"device '{name}' cannot be used: {one_line(error)}") from error
    return device


def _why_no_device(device: torch.device) -> str | None:
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if torch.version.cuda is None and not count:
            return f"torch {torch.__version__} here is built without CUDA"
        if not count:
            return "no CUDA GPU is visible to torch (`gimp-fast doctor` shows what it finds)"
        if (device.index or 0) >= count:
            return f"the last GPU here is cuda:{count - 1}"
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            return "there is no Apple GPU here"
    elif device.type != "cpu":
        return f"the package does not compute on '{device.type}'"
    return None
