"""The measurement of host time runs all of a pass but the driver; the time is not tested."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(
    not BENCHMARKS.is_dir(), reason="the tests lie without the benchmarks"
)
CODE = """
import torch, _host_time
from gimp_fast.kernels import compiled

given, launch = [], compiled.Compiled.launch
compiled.Compiled.launch = lambda kept, *rest: (given.append(rest), launch(kept, *rest))
print(_host_time.host_ms(2, 300, 2, 16, 32, torch.bfloat16, repeats=2))
print(len(given))
"""


def run(**environment):
    """Python's output in a process of its own, which decides once whether kernels are compiled."""
    kept = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    paths = os.pathsep.join([str(BENCHMARKS), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-P", "-c", CODE], env=kept | environment | {"PYTHONPATH": paths},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_pass_is_measured_where_there_is_no_gpu():
    """Of five passes, four launch kernels that were kept, and all of them."""
    done = run()
    assert done.returncode == 0, done.stderr[-2000:]
    milliseconds, launches = done.stdout.split()
    assert float(milliseconds) > 0
    assert int(launches) > 4 * 10


def test_interpreted_kernels_are_refused():
    done = run(TRITON_INTERPRET="1")
    assert done.returncode == 1
    assert "unset TRITON_INTERPRET" in done.stderr
