"""Every kernel and configuration compiles for GPUs that are not here, and spills no register."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from builders.once import make_once, session_folder
from packaging.version import Version

import gimp_fast.kernels

triton = pytest.importorskip("triton")

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SCRIPT = HERE / "ahead_of_time.py"
KERNELS = {
    name
    for path in (ROOT / "kernels").glob("*.py")
    for name in re.findall(r"^def (_\w+_kernel)\(", path.read_text(encoding="utf-8"), re.M)
}
# Bytes of shared memory that one block may have.
SHARED = {
    80: 163 * 1024, 86: 99 * 1024, 89: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024,
    103: 48 * 1024, 120: 99 * 1024,
}  # fmt: skip
# The configurations were chosen with triton 3.7. Older ones need more registers: a few kernels of
# fp32 or of odd head dims spill 8 to 160 bytes a thread.
STACK = 0 if Version(triton.__version__) >= Version("3.7") else 160
# The pseudo-inverse calls its products, and keeps addresses on the stack meanwhile. They are read
# between two products, in microseconds each, not in their loops.
CALLS = 8
# Kernels that hold all landmarks of a head, and where there is room for them.
HOLDING = {name for name in KERNELS if "_all_" in name}
HELD = {
    (90, "bfloat16", 64): HOLDING,
    (100, "bfloat16", 64): {"_queries_to_landmarks_all_fwd_kernel"},
}
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


@pytest.fixture(scope="session")
def results(tmp_path_factory) -> Path:
    """A folder for what compiling found out; it is used until a source or a version changes."""
    folder = ROOT / "build" if os.access(ROOT, os.W_OK) else session_folder(tmp_path_factory)
    digest = hashlib.sha256(f"{triton.__version__} {torch.__version__}".encode())
    for path in (SCRIPT, *sorted(Path(gimp_fast.kernels.__file__).parent.glob("*.py"))):
        digest.update(path.read_bytes())
    return folder / "ahead-of-time" / digest.hexdigest()[:16]


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> dict[str, str]:
    """One that does not interpret kernels; what several cases share is compiled once."""
    cache = session_folder(tmp_path_factory) / "triton-cache"
    kept = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return kept | {"TRITON_CACHE_DIR": str(cache)}


def test_the_kernels_are_found():
    assert {"_landmarks_fwd_kernel", "_pinv_fwd_kernel"} <= KERNELS


@pytest.mark.parametrize(
    ("block", "warps"),
    [((86, 4, 32, 0), 48), ((86, 4, 64, 0), 32), ((80, 8, 255, 0), 8), ((90, 4, 128, 65536), 12)],
    ids=["warps", "registers", "registers-of-large-blocks", "shared-memory"],
)
def test_resident_warps_are_those_of_the_scarcest_resource(block, warps, monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    from ahead_of_time import resident_warps

    assert resident_warps(*block) == warps


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "head_dims"), CASES.items(), ids=[f"sm_{c}-{dtype}" for c, dtype in CASES]
)
def test_every_launch_compiles_fits_and_spills_nothing(case, head_dims, results, environment):
    capability, dtype = case

    def compile_all(path: Path) -> None:
        done = subprocess.run(
            [sys.executable, SCRIPT, str(capability), dtype, *map(str, head_dims)],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        path.write_text(done.stdout, encoding="utf-8")

    name = f"sm_{capability}-{dtype}-{'-'.join(map(str, head_dims))}.jsonl"
    file = make_once(results / name, compile_all)
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for head_dim in head_dims:
        expected = (KERNELS - HOLDING) | HELD.get((*case, head_dim), set())
        assert {row["kernel"] for row in rows if row["head_dim"] == head_dim} == expected
    assert [row for row in rows if row["shared"] > SHARED[capability]] == []
    assert [row for row in rows if row["stack"] > STACK + CALLS * ("_pinv_" in row["kernel"])] == []
    # Operands of the pseudo-inverse arrive 16 bytes at a time, whichever way a product reads them.
    assert [
        row for row in rows if "_pinv_" in row["kernel"] and row["copies"] not in ([16], [])
    ] == []
