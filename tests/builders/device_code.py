"""CUDA kernels compiled for the CPU, by tests/cuda_on_cpu/cuda_on_cpu.h, and run in a process."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from builders.once import make_once, session_folder
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "cuda_on_cpu"
RISING, FALLING = 0, -1
# Orders of threads; a positive one is a seed.
ORDERS = (RISING, FALLING, 1, 2)
# Accesses beyond an array, and vectors at an address that a GPU would refuse, end the run.
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
FLAGS = ("-std=c++20", "-O1", "-g1", "-ffp-contract=off", "-Wall", "-Wno-unknown-pragmas")


@dataclass(frozen=True)
class DeviceProgram:
    """A program of tests/cuda_on_cpu."""

    path: Path

    def run(self, *words: str | int, inputs: Sequence[Tensor] = ()) -> subprocess.CompletedProcess:
        data = b"".join(bytes_of(x) for x in inputs)
        # Leaks cannot be looked for where a debugger or a container forbids it.
        environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}
        command = [self.path, *map(str, words)]
        return subprocess.run(
            command, input=data, env=environment, capture_output=True, check=False
        )

    def results(
        self,
        *words: str | int,
        inputs: Sequence[Tensor],
        outputs: Sequence[tuple[torch.dtype, int]],
        orders: Sequence[int] = ORDERS,
    ) -> list[Tensor]:
        """The outputs, of which each has a dtype and a length. Every order gives the same bits."""
        done = self.run(*words, *orders, inputs=inputs)
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        sizes = [dtype.itemsize * count for dtype, count in outputs]
        assert len(done.stdout) == sum(sizes) * len(orders)
        first = done.stdout[: sum(sizes)]
        assert done.stdout == first * len(orders), "results depend on the order of threads"
        tensors, start = [], 0
        for (dtype, _), size in zip(outputs, sizes, strict=True):
            data = torch.tensor(list(first[start : start + size]), dtype=torch.uint8)
            tensors.append(data.view(dtype))
            start += size
        return tensors


def name_of(dtype: torch.dtype) -> str:
    """As the programs call it: ``"float32"``."""
    return str(dtype).removeprefix("torch.")


def bytes_of(x: Tensor) -> bytes:
    return x.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def compiled(source: str, factory: pytest.TempPathFactory) -> DeviceProgram:
    """tests/cuda_on_cpu/`source` as a program; kept in build/ until a source or compiler changes.

    Skips where a compiler or NVIDIA's headers are missing.
    """
    if not (ROOT / "csrc").is_dir():
        pytest.skip("the tests lie without the sources")
    compiler, headers = _compiler(), _cuda_headers()
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    command = [
        *(compiler, *FLAGS, *SANITIZERS, HERE / source, "-I", HERE, "-I", ROOT / "csrc"),
        *("-isystem", headers, "-isystem", Path(torch.__file__).parent / "include"),
        *("-idirafter", HERE / "standin"),
    ]
    digest = hashlib.sha256(version + " ".join(map(str, command)).encode())
    sources = (ROOT / "csrc").glob("*.*h"), HERE.glob("*.*"), (HERE / "standin").rglob("target")
    for path in sorted(path for group in sources for path in group):
        digest.update(path.read_bytes())
    folder = ROOT / "build" if os.access(ROOT, os.W_OK) else session_folder(factory)

    def make(path: Path) -> None:
        done = subprocess.run(
            [*command, "-o", path], capture_output=True, encoding="utf-8", check=False
        )
        assert done.returncode == 0, done.stderr[-5000:]

    name = f"{Path(source).stem}-{digest.hexdigest()[:16]}"
    return DeviceProgram(make_once(folder / "cuda-on-cpu" / name, make))


def _compiler() -> str:
    if sys.platform != "linux":
        pytest.skip("device code runs on the CPU of a Linux machine only")
    found = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if found is None:
        pytest.skip("there is no C++ compiler")
    tried = subprocess.run(
        [found, *SANITIZERS, "-x", "c++", "-", "-o", "/dev/null"],
        input=b"int main() {}", capture_output=True, check=False,
    )  # fmt: skip
    if tried.returncode:
        pytest.skip(f"{found} has no AddressSanitizer")
    return found


def _cuda_headers() -> Path:
    """NVIDIA's headers of bf16 and fp16: those that Triton brings, or those of a CUDA toolkit."""
    candidates = [Path(os.environ[x]) for x in ("CUDA_HOME", "CUDA_PATH") if x in os.environ]
    if (triton := importlib.util.find_spec("triton")) is not None:
        candidates.insert(0, Path(triton.origin).parent / "backends" / "nvidia")
    if (nvcc := shutil.which("nvcc")) is not None:
        candidates.append(Path(nvcc).resolve().parents[1])
    for folder in candidates:
        if (folder / "include" / "cuda_bf16.h").is_file():
            return folder / "include"
    pytest.skip("NVIDIA's cuda_bf16.h was not found beside Triton, in CUDA_HOME or beside nvcc")
