"""Compile Triton's kernels for sm_86, or another GPU of its kind, and run them in the emulator."""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import triton
from ptx.errors import PtxError
from ptx.global_memory import GlobalMemory
from ptx.machine import execute
from ptx.parser import parse
from ptx.program import Program
from torch import Tensor
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

import gimp_fast.kernels
from gimp_fast.kernels import launch as launching
from gimp_fast.ops import backends

INTEGERS = {f"{kind}{width}": np.dtype(f"u{width // 8}") for kind in "iu" for width in (32, 64)}
# Pointers to scratch memory of Triton's own, which none of these kernels has.
SCRATCH = 2


class Emulator:
    """Executes what the package launches, on tensors in the memory of the CPU.

    Attributes:
        executed: how often each kernel ran.
    """

    def __init__(self) -> None:
        self.executed: Counter[str] = Counter()
        self._programs: dict[str, Program] = {}

    def launch(
        self, kernel: Any, grid: tuple[int, ...], config: launching.Config, *args: Any,
        **constants: Any,
    ) -> None:  # fmt: skip
        """Stands in for ``gimp_fast.kernels.launch.launch``."""
        if 0 in grid:
            return
        options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
        compiled = kernel.warmup(*args, **constants, **options, grid=(1,))
        if compiled.metadata.global_scratch_size or compiled.metadata.num_ctas != 1:
            raise PtxError("scratch memory and clusters are not modelled")
        if compiled.hash not in self._programs:
            program = Program(parse(compiled.asm["ptx"]), compiled.metadata.shared)
            self._programs[compiled.hash] = program
        given = dict(zip(kernel.arg_names, args, strict=False)) | constants
        kept = [(given[x], t) for x, t in compiled.src.signature.items() if t != "constexpr"]
        memory = GlobalMemory(x for x, _ in kept if isinstance(x, Tensor))
        parameters = [_bits(x, name, memory) for x, name in kept]
        parameters += [np.zeros((1, 1), np.uint64)] * SCRATCH
        threads = 32 * config.num_warps
        execute(self._programs[compiled.hash], grid, threads, parameters, memory)
        memory.copy_back()
        self.executed[compiled.metadata.name] += 1


def _bits(value: Any, type_name: str, memory: GlobalMemory) -> np.ndarray:
    """An argument as the (1, 1) bits of a parameter."""
    if type_name.startswith("*"):
        return np.array([[memory.address(value)]], np.uint64)
    if type_name == "fp32":
        return np.array([[value]], np.float32).view(np.uint32)
    if type_name not in INTEGERS:
        raise PtxError(f"arguments of type {type_name} are not modelled")
    dtype = INTEGERS[type_name]
    return np.array([[value & np.iinfo(dtype).max]], dtype)


def install(capability: int = 86) -> Emulator:
    """Make ``backend="triton"`` compile for this GPU and run in an emulator, on CPU tensors.

    For the rest of the process, in which Triton must not interpret: without TRITON_INTERPRET.
    Memory that torch does not initialise holds NaN, so that reading it shows.
    """
    if knobs.runtime.interpret:
        raise RuntimeError("TRITON_INTERPRET is set: there would be nothing to compile")
    driver.set_active(
        SimpleNamespace(
            get_current_target=lambda: GPUTarget("cuda", capability, 32),
            get_current_device=lambda: 0,
            get_current_stream=lambda device: 0,
        )
    )
    knobs.runtime.add_stages_inspection_hook = _stop_at_ptx
    backends._triton_interprets = lambda: True
    emulator = Emulator()
    arch = launching.ARCHITECTURES[capability]
    real = {"launch": launching.launch, "architecture": launching.architecture}
    for name, stand_in in (("launch", emulator.launch), ("architecture", lambda device: arch)):
        for module in _kernel_modules():
            if getattr(module, name, None) is real[name]:
                setattr(module, name, stand_in)
    torch.use_deterministic_algorithms(True)
    return emulator


def _kernel_modules() -> list[Any]:
    names = (x.name for x in pkgutil.iter_modules(gimp_fast.kernels.__path__))
    return [importlib.import_module(f"gimp_fast.kernels.{name}") for name in names]


def kernel_names() -> set[str]:
    """Names of all kernels in the package that are launched."""
    return {
        name
        for module in _kernel_modules()
        for name, x in vars(module).items()
        if isinstance(x, triton.JITFunction) and name.endswith("_kernel")
    }


def _stop_at_ptx(backend=None, stages=None, options=None, language=None, capability=None):
    """Triton's hook for the stages of compiling: leaves out the assembler."""
    if stages is not None:
        stages["cubin"] = lambda source, metadata: b""
    return "ptx-only", "ptx-only"
