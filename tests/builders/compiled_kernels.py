"""What the Triton kernels need when they are compiled for GPUs that are not here.

Compiling is the same on every machine, and takes a quarter of an hour. So what was found is kept
in the repository, with a digest of what it was compiled from. While that holds, the tests read it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import triton

import gimp_fast.kernels

FOLDER = Path(__file__).resolve().parents[1] / "kernels"
SCRIPT, RECORD = FOLDER / "ahead_of_time.py", FOLDER / "compiled.jsonl"
# (capability, dtype): head dims.
CASES = {
    (80, "bfloat16"): (64, 128),
    (80, "float32"): (64, 128),
    (86, "bfloat16"): (32, 64, 128, 256),
    (86, "float32"): (64, 128),
    (86, "float16"): (16,),
    (89, "float16"): (64,),
    (90, "bfloat16"): (64, 128),
    (90, "float32"): (64, 128),
    (100, "bfloat16"): (64, 128),
    (100, "float32"): (64, 128),
    (120, "bfloat16"): (64, 128),
    (120, "float32"): (64, 128),
    (120, "float16"): (16,),
    # A GPU that the table does not know gets settings that fit any.
    (103, "bfloat16"): (64,),
}


def name_of(case: tuple[int, str]) -> str:
    return f"sm_{case[0]}-{case[1]}"


def sources() -> dict[str, str]:
    """Versions, and a digest of every file that decides what is compiled."""
    digest = hashlib.sha256(repr(CASES).encode())
    for path in (SCRIPT, *sorted(Path(gimp_fast.kernels.__file__).parent.glob("*.py"))):
        digest.update(path.read_bytes())
    return {
        "triton": triton.__version__,
        "torch": torch.__version__.partition("+")[0],
        "digest": digest.hexdigest(),
    }


@functools.cache
def recorded() -> dict[str, list[dict[str, Any]]]:
    """Name of a case -> its kernels, as recorded; empty if something else was compiled."""
    first, *lines = RECORD.read_text(encoding="utf-8").splitlines()
    if json.loads(first) != sources():
        return {}
    found: dict[str, list[dict[str, Any]]] = {}
    for row in map(json.loads, lines):
        found.setdefault(row.pop("case"), []).append(row)
    return found


def compiled(case: tuple[int, str], environment: Mapping[str, str] | None = None) -> str:
    """A JSON object a line for every kernel of a case, from the compiler."""
    kept = {**(environment or os.environ)}
    kept.pop("TRITON_INTERPRET", None)  # else nothing is compiled
    words = [sys.executable, SCRIPT, str(case[0]), case[1], *map(str, CASES[case])]
    done = subprocess.run(words, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def record_lines() -> Iterator[str]:
    """The lines of the record, compiled anew."""
    yield json.dumps(sources())
    for case in CASES:
        for line in compiled(case).splitlines():
            yield json.dumps({"case": name_of(case), **json.loads(line)})
