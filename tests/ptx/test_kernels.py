"""Every Triton kernel, compiled for sm_86 and executed without a GPU, against fp64."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.dtypes import NAMES
from builders.once import make_once, session_folder
from ptx.kernel_cases import CASES

import gimp_fast

triton = pytest.importorskip("triton")
pytestmark = pytest.mark.slow
HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SCRIPT = HERE / "kernel_cases.py"
# One dtype is enough for what takes long: fp16 has the pseudo-inverse of fp32.
LEFT_OUT = {
    "bf16": (),
    "fp16": ("N80-H1-D40-M77", "meetings-N50-D16-M40"),
    "fp32": ("N80-H1-D40-M77",),
}
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
RUNS = {name: [x for x in CASES if x not in left_out] for name, left_out in LEFT_OUT.items()}


def _sources() -> list[Path]:
    """Every file that a result depends on."""
    package = Path(gimp_fast.__file__).parent
    parts = (package / name for name in ("kernels", "ops", "reference"))
    folders = (HERE, HERE.parent / "builders", *parts)
    recorded = HERE.parent / "kernels" / "ahead_of_time.py"
    return [recorded, *(path for folder in folders for path in sorted(folder.glob("*.py")))]


@pytest.fixture(scope="session")
def report(tmp_path_factory) -> Callable[[str], dict[str, Any]]:
    """Name of a run -> fault of every case, and the kernels that no case has executed.

    A run takes a minute; what it found is kept until a source or a version changes.
    """
    folder = session_folder(tmp_path_factory)
    digest = hashlib.sha256(f"{triton.__version__} {torch.__version__}".encode())
    for path in _sources():
        digest.update(path.read_bytes())
    results = (ROOT / "build" if os.access(ROOT, os.W_OK) else folder) / "ptx"
    kept = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment = kept | {"TRITON_CACHE_DIR": str(folder / "triton-cache")}
    paths = {name: results / digest.hexdigest()[:16] / f"{name}.jsonl" for name in RUNS}

    def make(name: str) -> Path:
        def execute(path: Path) -> None:
            done = subprocess.run(
                [sys.executable, SCRIPT, DTYPES[name], *RUNS[name]],
                env=environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[-3000:]
            path.write_text(done.stdout, encoding="utf-8")

        return make_once(paths[name], execute)

    def run(name: str) -> dict[str, Any]:
        # While another worker is at this run, one that nobody has begun is done first.
        for other in RUNS:
            if _is_being_made(paths[name]) and not _is_being_made(paths[other]):
                make(other)
        *faults, kernels = map(json.loads, make(name).read_text(encoding="utf-8").splitlines())
        return {x["case"]: x["fault"] for x in faults} | kernels

    return run


def _is_being_made(path: Path) -> bool:
    """Whether another worker holds the lock of ``make_once``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_every_dtype_is_run():
    assert set(RUNS) == set(NAMES.values()) - {NAMES[torch.float64]}


@pytest.mark.parametrize(
    ("run", "case"), [(run, case) for run, cases in RUNS.items() for case in cases]
)
def test_results_match_the_fp64_reference(run, case, report):
    assert report(run)[case] is None


@pytest.mark.parametrize("run", RUNS)
def test_every_kernel_of_the_package_is_executed(run, report):
    assert report(run)["not executed"] == []
