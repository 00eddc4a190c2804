"""Compile Triton's kernels for sm_86, or another GPU of its kind, and run them in the emulator."""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
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
from gimp_fast.ops import backends, token_conv_triton

INTEGERS = {f"{kind}{width}": np.dtype(f"u{width // 8}") for kind in "iu" for width in (32, 64)}
# Pointers to scratch memory of Triton's own, which none of these kernels has.
SCRATCH = 2
# Arguments of a compiled kernel's launcher between the grid and those of the kernel.
TRITONS_OWN = 6

# Blocks of a cooperative launch that run at the same time: all of them in step, or each by itself
# until it waits, in rising or falling order.
TURNS = {
    "together": lambda count: [range(count)],
    "rising": lambda count: [[i] for i in range(count)],
    "falling": lambda count: [[i] for i in reversed(range(count))],
}


class Emulator:
    """Executes what the package launches, on tensors in the memory of the CPU.

    Attributes:
        executed: how often each kernel ran.
        meetings: how often a launch whose blocks wait for each other ran.
        multiprocessors: of the GPU: as many blocks may wait for each other.
        turns: a key of ``TURNS``.
    """

    def __init__(self) -> None:
        self.executed: Counter[str] = Counter()
        self.meetings = 0
        self.multiprocessors, self.turns = 8, "together"
        self._programs: dict[str, Program] = {}

    @contextmanager
    def device(self, arch: launching.Architecture, **settings: Any) -> Iterator[None]:
        """A GPU with other tables, and with these values of ``multiprocessors`` and ``turns``."""
        before, before_arch = dict(vars(self)), launching.UNKNOWN
        vars(self).update(settings)
        launching.UNKNOWN = arch
        try:
            yield
        finally:
            vars(self).update({name: before[name] for name in settings})
            launching.UNKNOWN = before_arch

    def make(self, launch: launching.Launch) -> Any:
        """Stands in for ``Launch.make``; what it returns is kept and launched again."""
        kernel, args, constants = launch.kernel, launch.arguments, launch.constants
        compiled = kernel.warmup(*args, **constants, **launch.options, grid=(1,))
        if compiled.metadata.global_scratch_size or compiled.metadata.num_ctas != 1:
            raise PtxError("scratch memory and clusters are not modelled")
        if compiled.hash not in self._programs:
            program = Program(parse(compiled.asm["ptx"]), compiled.metadata.shared)
            self._programs[compiled.hash] = program
        run = partial(self._run, launch, compiled)
        values = (constants[name] for name in kernel.arg_names[len(args) :])
        run(*(*launch.grid, 1, 1)[:3], *[None] * TRITONS_OWN, *args, *values)
        return SimpleNamespace(run=run, function=None, packed_metadata=None)

    def _run(
        self, made: launching.Launch, compiled: Any, x: int, y: int, z: int, *values: Any
    ) -> None:
        """Execute what was compiled for one launch, with the arguments of this one."""
        given = dict(zip(made.kernel.arg_names, values[TRITONS_OWN:], strict=True))
        kept = [(given[x], t) for x, t in compiled.src.signature.items() if t != "constexpr"]
        threads, blocks = 32 * made.config.num_warps, x * y * z
        tensors = [x for x, _ in kept if isinstance(x, Tensor)]
        memory = GlobalMemory(tensors, blocks, threads, made.cooperative)
        parameters = [_bits(x, name, memory) for x, name in kept]
        parameters += [np.zeros((1, 1), np.uint64)] * SCRATCH
        turns = TURNS[self.turns](blocks) if made.cooperative else None
        execute(self._programs[compiled.hash], (x, y, z), threads, parameters, memory, turns)
        memory.copy_back()
        self.executed[made.name] += 1
        self.meetings += made.cooperative


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


def install(capability: int) -> Emulator:
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
    token_conv_triton.takes = lambda v: v.dtype in token_conv_triton.DTYPES
    emulator = Emulator()
    launching.Launch.make = lambda launch: emulator.make(launch)
    # What the launchers take for a device that is no GPU.
    launching.UNKNOWN = launching.ARCHITECTURES[capability]
    launching._multiprocessors = lambda device: emulator.multiprocessors
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
