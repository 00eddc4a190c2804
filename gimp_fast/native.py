"""Load the native operators: the CPU library, and the CUDA library where torch can use it."""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass, field
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
    for; they use the first.
    """

    cpu: str
    cuda: str
    facts: dict[str, Any] = field(default_factory=dict)
    instructions: tuple[str, ...] = ()


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
    return NativeStatus(AVAILABLE, _load_cuda(facts), facts, tuple(module.instruction_sets()))


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


def _load_cuda(facts: dict[str, Any]) -> str:
    library = Path(__file__).resolve().parent / CUDA_LIBRARY
    if not facts["cuda"]:
        return f"built without CUDA ({facts['cuda_reason']})"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} has no CUDA; install a CUDA build of torch"
    try:
        torch.ops.load_library(library)
    except OSError as error:
        return f"{library} cannot be loaded ({error}); reinstall with this torch"
    return AVAILABLE
