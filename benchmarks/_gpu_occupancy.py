"""Registers, shared memory and resident warps of the kernels, compiled for a GPU that is not here.

The compiler takes minutes. What it found is kept in ``build/gpu-model`` until a kernel changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import gimp_fast.kernels

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "tests" / "kernels" / "ahead_of_time.py"
FOLDER = ROOT / "build" / "gpu-model"


def occupancy(capability: int, dtype: str, head_dim: int) -> dict[tuple[str, str], dict[str, int]]:
    """Name and configuration of a kernel -> what it needs, and the warps that run at a time.

    Of several specialisations it is the one with the fewest warps.

    Args:
        dtype: as torch writes it, "bfloat16".
    """
    found: dict[tuple[str, str], dict[str, int]] = {}
    for line in compiled(capability, dtype, head_dim).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        key = row["kernel"], row["config"]
        if key not in found or row["warps"] < found[key]["warps"]:
            found[key] = {name: row[name] for name in ("registers", "shared", "warps")}
    return found


def compiled(capability: int, dtype: str, head_dim: int) -> Path:
    """File of the compiler's answers, made if it is not there."""
    digest = hashlib.sha256(SCRIPT.read_bytes())
    for path in sorted(Path(gimp_fast.kernels.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    path = FOLDER / f"sm_{capability}-{dtype}-{head_dim}-{digest.hexdigest()[:16]}.jsonl"
    if not path.exists():
        print(f"compiling for sm_{capability}; this takes minutes", file=sys.stderr, flush=True)
        environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
        command = [sys.executable, SCRIPT, str(capability), dtype, str(head_dim)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{SCRIPT.name} failed:\n{done.stderr[-2000:]}")
        FOLDER.mkdir(parents=True, exist_ok=True)
        path.write_text(done.stdout, encoding="utf-8")
    return path
