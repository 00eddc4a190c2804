"""Every kernel and configuration compiles for GPUs that are not here, and spills nothing there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.version import Version

triton = pytest.importorskip("triton")

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
KERNELS = {
    name
    for path in (ROOT / "kernels").glob("*.py")
    for name in re.findall(r"^def (_\w+_kernel)\(", path.read_text(encoding="utf-8"), re.M)
}
# Bytes of shared memory that one block may have.
SHARED = {80: 163 * 1024, 86: 99 * 1024, 89: 99 * 1024, 90: 227 * 1024, 100: 48 * 1024}
# The table of configurations is made with triton 3.7. Its forerunner needs some more registers: a
# few kernels of fp32 or of odd head dims keep 8 to 160 bytes a thread outside them.
STACK = 0 if Version(triton.__version__) >= Version("3.7") else 160
CASES = [
    *[(c, dtype, d) for c in (80, 86, 90) for dtype in ("bfloat16", "float32") for d in (64, 128)],
    (89, "float16", 64),
    (86, "float16", 16),
    (86, "bfloat16", 32),
    (86, "bfloat16", 256),
    # A GPU that the table does not know gets settings that fit any.
    (100, "bfloat16", 64),
]


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """Not interpreted; what several cases share is compiled once."""
    cache = tmp_path_factory.getbasetemp().parent / "triton-cache"
    return {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {
        "TRITON_CACHE_DIR": str(cache)
    }


def test_the_kernels_are_found():
    assert {"_landmarks_fwd_kernel", "_product_kernel"} <= KERNELS


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
    ("capability", "dtype", "head_dim"), CASES, ids=[f"sm_{c}-{t}-D{d}" for c, t, d in CASES]
)
def test_every_launch_compiles_fits_and_spills_nothing(capability, dtype, head_dim, environment):
    script = HERE / "ahead_of_time.py"
    done = subprocess.run(
        [sys.executable, script, str(capability), dtype, str(head_dim)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["kernel"] for row in rows} == KERNELS
    too_large = [row for row in rows if row["shared"] > SHARED[capability]]
    assert not too_large
    spilling = [row for row in rows if row["stack"] > STACK]
    assert not spilling
