"""Whether the CUDA operators and Triton's kernels can run on a GPU, or the reason why not."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

import torch

from gimp_fast import native

# Triton compiles for no older NVIDIA GPU.
TRITON_CAPABILITY = (8, 0)


def why_not(backend: str, device: torch.device) -> str | None:
    """Why ``"cuda"`` or ``"triton"`` cannot run on this GPU; None if it can.

    It is taken for granted that the backend is there: built and loaded, or installed.
    """
    gpu = torch.cuda.get_device_properties(device)
    capability = (gpu.major, gpu.minor)
    if backend == "triton":
        return _too_old_for_triton(gpu.name, capability)
    status = native.load()
    built, compiler = status.facts["cuda_archs"], status.facts["nvcc"]
    return _not_in_the_binary(gpu.name, capability, built, compiler, status.cuda_driver)


def why_on_no_gpu(backend: str) -> str | None:
    """Why a backend cannot run on any visible GPU, of which there is one; None if it can."""
    reasons = [why_not(backend, device) for device in visible()]
    return None if None in reasons else "; ".join(dict.fromkeys(reasons))


def reasons(device: torch.device) -> dict[str, str]:
    """Backend -> why this GPU cannot run it, for those that it cannot."""
    backends = ("cuda", "triton") if native.load().cuda == native.AVAILABLE else ("triton",)
    found = {backend: why_not(backend, device) for backend in backends}
    return {backend: reason for backend, reason in found.items() if reason is not None}


def visible() -> Iterator[torch.device]:
    """The GPUs that torch sees."""
    for index in range(torch.cuda.device_count()):
        yield torch.device("cuda", index)


def _too_old_for_triton(name: str, capability: tuple[int, int]) -> str | None:
    if capability >= TRITON_CAPABILITY:
        return None
    needed = _dotted(TRITON_CAPABILITY)
    return f"{_described(name, capability)}; Triton's kernels need {needed} or newer"


@functools.cache
def _not_in_the_binary(
    name: str,
    capability: tuple[int, int],
    architectures: str,
    nvcc: str,
    driver: tuple[int, int] | None,
) -> str | None:
    """A binary runs on GPUs of its own generation that are not older than it. The last one is also
    there in a form that the driver translates for newer GPUs, if it is not older than the compiler.
    """
    built = [_pair(text) for text in re.findall(r"\b\d{2,}", architectures)]
    if not built or any(x[0] == capability[0] and x <= capability for x in built):
        return None
    described = _described(name, capability)
    if capability < built[-1]:
        names = ", ".join(map(_dotted, built))
        return f"{described}; the CUDA operators are compiled for {names} and newer"
    compiler = tuple(map(int, nvcc.split(".")[:2]))
    if driver is None or driver >= compiler:
        return None
    return (
        f"{described}; the CUDA operators are compiled for GPUs up to {_dotted(built[-1])}, and "
        f"this driver, of CUDA {_dotted(driver)}, cannot translate code of CUDA "
        f"{_dotted(compiler)} for it; update the driver"
    )


def _described(name: str, capability: tuple[int, int]) -> str:
    return f"{name} has compute capability {_dotted(capability)}"


def _pair(architecture: str) -> tuple[int, int]:
    """``"86"`` -> (8, 6), ``"120"`` -> (12, 0)."""
    return int(architecture[:-1]), int(architecture[-1])


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
