"""compute-sanitizer over every GPU kernel: reads and writes out of bounds, and races.

python tests/kernels/sanitize.py [--tools memcheck racecheck]

Exit code 0: every tool found nothing, or there is no GPU. 1: a tool found something or is missing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch

CASES = Path(__file__).with_name("small_cases.py")
TOOLS = ("memcheck", "racecheck")
# Exit code of a tool that found something.
FOUND = 9


def sanitizer() -> str | None:
    """Path of compute-sanitizer, from PATH or a CUDA toolkit; None if it is not installed."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    folders = [
        str(Path(home) / part) for home in homes if home for part in ("bin", "compute-sanitizer")
    ]
    return shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path=os.pathsep.join(folders)
    )


def command(tool: str, program: str) -> list[str]:
    options = ["--tool", tool, "--error-exitcode", str(FOUND), "--target-processes", "all"]
    if tool == "memcheck":
        options += ["--leak-check", "no"]
    return [program, *options, sys.executable, str(CASES)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS)
    tools = parser.parse_args(argv).tools
    if not torch.cuda.is_available():
        print("skipped: compute-sanitizer needs a CUDA GPU")
        return 0
    program = sanitizer()
    if program is None:
        print("compute-sanitizer was not found on PATH or in $CUDA_HOME; install the CUDA toolkit")
        return 1
    # Without torch's allocator every tensor is an allocation, whose bounds the tools know.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    codes = {}
    for tool in tools:
        print(f"== compute-sanitizer --tool {tool}", flush=True)
        codes[tool] = subprocess.run(
            command(tool, program), env=environment, check=False
        ).returncode
    meaning = {0: "clean", FOUND: "found something"}
    for tool, code in codes.items():
        print(f"{tool}: {meaning.get(code, f'exit code {code}')}")
    return int(any(codes.values()))


if __name__ == "__main__":
    raise SystemExit(main())
