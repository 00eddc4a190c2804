"""Compile every launch of a Nyström layer for a GPU that is not here; print what each needs.

python tests/kernels/ahead_of_time.py 86 bfloat16 64 128   ->  one JSON object a kernel
python tests/kernels/ahead_of_time.py --table FILE         ->  all architectures, as a JSON table

The launches are those of the real launchers for tensors of this dtype and these head dims, recorded
on the "meta" device: signature, specialisation and configuration are what a GPU would run.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from gimp_fast.kernels import launch as launching
from gimp_fast.kernels import token_conv
from gimp_fast.kernels.nystrom_attention import nystrom_attention_bwd, nystrom_attention_fwd

# Limits of a multiprocessor (CUDA C++ Programming Guide, technical specifications): warps, blocks,
# and KiB of shared memory, of which each block takes one more than it asks for.
MULTIPROCESSOR = {
    80: (64, 32, 164), 86: (48, 16, 100), 89: (48, 24, 100), 90: (64, 32, 228),
    100: (64, 32, 228), 120: (48, 24, 100),
}  # fmt: skip
MULTIPROCESSORS = 108  # of the GPU that is pretended
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


def pretend(capability: int) -> None:
    """Make triton compile as if this GPU were here."""
    driver.set_active(
        SimpleNamespace(
            get_current_target=lambda: GPUTarget("cuda", capability, 32),
            get_current_device=lambda: 0,
            get_current_stream=lambda device: 0,
        )
    )


def record(
    dtype: torch.dtype, head_dim: int, arch: launching.Architecture
) -> list[launching.Launch]:
    """Every launch of a forward and a backward pass: of a batch, of packed bags, of some of their
    queries, and of short bags; the same with more landmarks than a program can hold.
    """
    with launching.recording(MULTIPROCESSORS) as launches:
        for each in (arch, tiled(arch)):
            run_all(dtype, head_dim, each)
    return launches


def tiled(arch: launching.Architecture) -> launching.Architecture:
    """The same GPU without kernels that hold all landmarks."""
    half, single = (
        {family: configs for family, configs in table.items() if not family.startswith("all_")}
        for table in (arch.half, arch.single)
    )
    return replace(arch, half=half, single=single)


def run_all(dtype: torch.dtype, head_dim: int, arch: launching.Architecture) -> None:
    heads, n, marks = 2, 1000, 256
    for cu_seqlens in (None, torch.empty(3, dtype=torch.int32, device="meta")):
        qkv = torch.empty(1, n, 3, heads, head_dim, dtype=dtype, device="meta")
        q, k, v = (x.transpose(1, 2) for x in qkv.unbind(2))
        out, *saved = nystrom_attention_fwd(q, k, v, cu_seqlens, marks, 6, 0.125, arch)
        nystrom_attention_bwd(out, q, k, v, cu_seqlens, *saved, 6, 0.125, arch)
        convolve(v, out, cu_seqlens, arch)
    needed = q[:, :, : n // 2]
    q_marks = q.new_empty(2, heads, marks, head_dim)
    out, *saved = nystrom_attention_fwd(
        needed, k, v, cu_seqlens, marks, 6, 0.125, arch, q_marks, cu_seqlens
    )
    nystrom_attention_bwd(out, needed, k, v, cu_seqlens, *saved, 6, 0.125, arch, cu_seqlens)
    convolve_rows(v, out, cu_seqlens, arch)
    q, k, v = (x[:, :, : marks // 2] for x in (q, k, v))
    out, *saved = nystrom_attention_fwd(q, k, v, None, marks, 6, 0.125, arch)
    nystrom_attention_bwd(out, q, k, v, None, *saved, 6, 0.125, arch, num_landmarks=marks)


def convolve(
    v: Tensor, out: Tensor, cu_seqlens: Tensor | None, arch: launching.Architecture
) -> None:
    """The convolution of a layer and its gradients; under autocast the filter is in fp32."""
    filters = v.new_empty(v.shape[1], 1, 33, 1, dtype=torch.float32)
    token_conv.token_conv_fwd(v, filters, out, cu_seqlens)
    token_conv.token_conv_fwd(out, filters, None, cu_seqlens, flip=True)
    token_conv.token_conv_weight_grad(out, v, cu_seqlens, 33, arch)


def convolve_rows(v: Tensor, out: Tensor, cu_seqlens: Tensor, arch: launching.Architecture) -> None:
    """The same of some rows."""
    filters = v.new_empty(v.shape[1], 1, 33, 1, dtype=torch.float32)
    index = v.new_empty(out.shape[2], dtype=torch.int64)
    token_conv.token_conv_rows_fwd(v, filters, out, index, cu_seqlens)
    token_conv.token_conv_rows_bwd(out, v, filters, index, cu_seqlens, arch)


def compile_all(capability: int, dtype: torch.dtype, head_dim: int) -> Iterator[dict[str, Any]]:
    """What every compiled kernel needs: configuration, registers, shared memory, stack, copies."""
    pretend(capability)
    arch = launching.ARCHITECTURES.get(capability, launching.UNKNOWN)
    seen = set()
    for made in record(dtype, head_dim, arch):
        compiled = made.kernel.warmup(*made.arguments, **made.constants, **made.options, grid=(1,))
        if compiled.hash in seen:
            continue
        seen.add(compiled.hash)
        yield {
            "kernel": compiled.metadata.name,
            "head_dim": head_dim,
            "config": str(made.config),
            "packed": made.constants.get("PACKED"),
            "shared": compiled.metadata.shared,
            "copies": copies(compiled.asm["ptx"]),
            **(needs := resources(compiled.asm["cubin"])),
            "warps": resident_warps(
                capability, made.config.num_warps, needs["registers"], compiled.metadata.shared
            ),
        }


def copies(ptx: str) -> list[int]:
    """Bytes that asynchronous copies into shared memory take at a time."""
    return sorted({int(size, 0) for size in re.findall(r"cp\.async\.c[ag]\..*?, (\w+)", ptx)})


def resources(cubin: bytes) -> dict[str, int]:
    """Registers and bytes of stack (where spilled registers go) of one kernel's machine code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run(
            [CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    usage = dict(re.findall(r"(REG|STACK):(\d+)", text))
    return {"registers": int(usage["REG"]), "stack": int(usage["STACK"])}


def resident_warps(capability: int, warps: int, registers: int, shared: int) -> int | None:
    """Warps of such blocks that a multiprocessor runs at a time; None for an unknown GPU."""
    if capability not in MULTIPROCESSOR:
        return None
    most_warps, most_blocks, kilobytes = MULTIPROCESSOR[capability]
    registers_of_warp = -(-32 * registers // 256) * 256  # handed out in pieces of 256
    blocks = min(
        most_blocks,
        most_warps // warps,
        65536 // registers_of_warp // warps,
        1024 * kilobytes // (shared + 1024),
    )
    return blocks * warps


def write_table(path: Path) -> None:
    """Write what each kernel's worst specialisation needs, and the warps that run at a time."""
    table: dict[str, Any] = {"triton": triton.__version__, "kernels": {}}
    for capability in (80, 86, 90):
        for dtype in ("bfloat16", "float32"):
            for head_dim in (64, 128):
                case = [str(capability), dtype, str(head_dim)]
                done = subprocess.run(
                    [sys.executable, __file__, *case], capture_output=True, text=True, check=True
                )
                largest: dict[str, dict[str, int]] = {}
                for row in map(json.loads, done.stdout.splitlines()):
                    kept = largest.setdefault(row["kernel"], {})
                    for key in ("registers", "shared", "stack"):
                        kept[key] = max(kept.get(key, 0), row[key])
                    kept["warps"] = min(kept.get("warps", row["warps"]), row["warps"])
                table["kernels"][f"sm_{capability} {dtype} D={head_dim}"] = largest
    path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "--table":
        write_table(Path(sys.argv[2]))
    else:
        for head_dim in map(int, sys.argv[3:]):
            for row in compile_all(int(sys.argv[1]), getattr(torch, sys.argv[2]), head_dim):
                print(json.dumps(row), flush=True)
