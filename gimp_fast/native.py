"""Load the native operators: the CPU library, and the CUDA library where torch can use it."""

from __future__ import annotations

import ctypes
import functools
import importlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

AVAILABLE = "available"
CUDA_LIBRARY = "libgimp_fast_cuda.so"


@dataclass(frozen=True)
class NativeStatus:
    """``"available"``, or why the C++ or CUDA operators are not; the CUDA library needs no GPU.

    ``facts`` is what the build recorded (compiler, CUDA architectures …); empty without a build.
    ``instructions`` are the instruction sets of this processor that the C++ operators were compiled
    for; they use the first. ``cuda_driver`` is the newest CUDA (major, minor) that the driver
    supports, ``cuda_runtime`` that of the CUDA library; None without a driver, or if the library is
    not loaded.
    """

    cpu: str
    cuda: str
    facts: dict[str, Any] = field(default_factory=dict)
    instructions: tuple[str, ...] = ()
    cuda_driver: tuple[int, int] | None = None
    cuda_runtime: tuple[int, int] | None = None

    @property
    def driver_is_too_old(self) -> bool:
        """Whether the CUDA library was built with a newer generation of CUDA than the driver's.

        Within a generation, any driver runs any binary.
        """
        if self.cuda_driver is None or self.cuda_runtime is None:
            return False
        return self.cuda_driver[0] < self.cuda_runtime[0]


@functools.cache
def load() -> NativeStatus:
    """What is loaded, and why the rest is not. The first call loads the libraries.

    They are looked for next to this file, so a source checkout that shadows an installed package is
    reported instead of silently running without operators.
    """
    try:
        module = importlib.import_module("gimp_fast._C")
    except ImportError as error:
        reason = _why_not_imported(error)
        return NativeStatus(cpu=reason, cuda=reason)
    facts = module.build_facts()
    status = NativeStatus(AVAILABLE, AVAILABLE, facts, tuple(module.instruction_sets()))
    reason = _load_cuda(facts)
    if reason is not None:
        return replace(status, cuda=reason)
    driver, runtime = _cuda_versions()
    return _checked(replace(status, cuda_driver=driver, cuda_runtime=runtime))


def _checked(status: NativeStatus) -> NativeStatus:
    """The status, with the reason if the driver cannot run the loaded CUDA library."""
    if not status.driver_is_too_old:
        return status
    driver, runtime = (f"{x[0]}.{x[1]}" for x in (status.cuda_driver, status.cuda_runtime))
    reason = (
        f"the NVIDIA driver supports CUDA up to {driver}, and these operators are built with CUDA "
        f"{runtime}; update the driver, or reinstall with nvcc of CUDA {status.cuda_driver[0]}"
    )
    return replace(status, cuda=reason)


def _why_not_imported(error: ImportError) -> str:
    package = Path(__file__).resolve().parent
    if not isinstance(error, ModuleNotFoundError):
        return f"gimp_fast._C in {package} cannot be loaded ({error}); reinstall with this torch"
    if (package.parent / "CMakeLists.txt").is_file():
        return (
            f"the imported gimp_fast is the source checkout {package.parent}, where nothing is "
            "built; run `pip install -e . --no-build-isolation` there, or leave that folder to use "
            "an installed gimp_fast"
        )
    return f"{package} holds no built gimp_fast._C; reinstall with `pip install .` from the sources"


def _load_cuda(facts: dict[str, Any]) -> str | None:
    """Why the CUDA library cannot be loaded; None if it is."""
    library = _cuda_library()
    if not facts["cuda"]:
        return f"built without CUDA ({facts['cuda_reason']})"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} has no CUDA; install a CUDA build of torch"
    try:
        torch.ops.load_library(library)
    except OSError as error:
        return f"{library} cannot be loaded ({error}); reinstall with this torch"
    return None


def _cuda_library() -> Path:
    return Path(__file__).resolve().parent / CUDA_LIBRARY


def _cuda_versions() -> list[tuple[int, int] | None]:
    """CUDA (major, minor) of the driver and of the loaded library; None where there is none."""
    library = ctypes.CDLL(str(_cuda_library()))
    names = ("gimp_fast_cuda_driver_version", "gimp_fast_cuda_runtime_version")
    versions = (getattr(library, name)() for name in names)
    return [(x // 1000, x % 1000 // 10) if x else None for x in versions]
