"""Short programs for the emulator: a few lines of PTX, run by one block or several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ptx.global_memory import GlobalMemory
from ptx.machine import execute
from ptx.parser import parse
from ptx.program import Program
from torch import Tensor

HEADER = """
.version 8.7
.target sm_86
.extern .shared .align 16 .b8 smem[];
.visible .entry snippet(
  {parameters}
)
.reqntid {threads}
{{
  .reg .pred %p<99>;
  .reg .b16 %rs<99>;
  .reg .b32 %r<99>;
  .reg .b64 %rd<99>;
"""
# %r90: the thread; %r91: the thread in the grid, which owns 16 bytes of every tensor at %rd90 + i.
START = """
  mov.u32 %r90, %tid.x;
  mov.u32 %r92, %ctaid.x;
  mad.lo.s32 %r91, %r92, {threads}, %r90;
"""


def run(
    body: str, tensors: Sequence[Tensor] = (), *, threads: int = 32, blocks: int = 1,
    shared: int = 4096, functions: str = "", turns: Sequence[Sequence[int]] | None = None,
) -> None:  # fmt: skip
    """Execute the lines; %rd90, %rd91, … point to each thread's 16 bytes of the tensors.

    Args:
        functions: text of functions that the lines call.
        turns: of a cooperative launch, as ``execute`` takes them.
    """
    text = HEADER.format(
        parameters=",\n".join(f"  .param .u64 p{i}" for i in range(len(tensors))), threads=threads
    )
    text += START.format(threads=threads)
    for i in range(len(tensors)):
        text += f"ld.param.b64 %rd{80 + i}, [p{i}];\n"
        text += f"mad.wide.u32 %rd{90 + i}, %r91, 16, %rd{80 + i};\n"
    program = Program(parse(f"{text}{body}\nret;\n}}\n{functions}"), shared)
    memory = GlobalMemory(tensors, blocks, threads, cooperative=turns is not None)
    parameters = [np.array([[memory.address(x)]], np.uint64) for x in tensors]
    execute(program, (blocks,), threads, parameters, memory, turns)
    memory.copy_back()


def words(values: np.ndarray) -> Tensor:
    """(threads, up to 4) 32-bit values -> the threads' 16 bytes."""
    bits = np.zeros((len(values), 4), np.uint32)
    values = np.ascontiguousarray(values)
    values = values.reshape(len(values), -1)
    bits[:, : values.shape[1]] = values.view(np.uint32)
    return torch.from_numpy(bits.view(np.int32))


def compute(
    body: str, inputs: np.ndarray, dtype: type = np.uint32, *, threads: int = 32, **options
) -> np.ndarray:
    """(threads, 4) results in %r10 … %r13 of lines that find their inputs in %r0 … %r3."""
    out = torch.zeros(len(inputs), 4, dtype=torch.int32)
    load = "ld.global.v4.b32 {%r0, %r1, %r2, %r3}, [%rd90];\n"
    keep = "\nst.global.v4.b32 [%rd91], {%r10, %r11, %r12, %r13};"
    blocks = len(inputs) // threads
    run(load + body + keep, [words(inputs), out], threads=threads, blocks=blocks, **options)
    return out.numpy().view(dtype)
