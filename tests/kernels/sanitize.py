"""compute-sanitizer over every GPU kernel: reads and writes out of bounds, and races.

python tests/kernels/sanitize.py [--tools memcheck racecheck]

Ends with 0 where there is no GPU, saying so; with 1 where a tool finds something or is missing.
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
# Whichever finds something ends with this.
FOUND = 9


def sanitizer() -> str | None:
    """Where compute-sanitizer is: on PATH, or in a CUDA toolkit."""
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
        print(
            "compute-sanitizer was not found on PATH or in $CUDA_HOME; it comes with CUDA's toolkit"
        )
        return 1
    # The allocator's blocks hide what lies beyond a tensor; without it each has bounds of its own.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    codes = {}
    for tool in tools:
        print(f"== compute-sanitizer --tool {tool}", flush=True)
        codes[tool] = subprocess.run(
            command(tool, program), env=environment, check=False
        ).returncode
    said = {0: "clean", FOUND: "found something"}
    for tool, code in codes.items():
        print(f"{tool}: {said.get(code, f'ended with {code}')}")
    return 0 if not any(codes.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
