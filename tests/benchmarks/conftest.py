"""The scripts of ``benchmarks/`` as modules."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch):
    """Let tests import the scripts, and forget them afterwards: one has the name of a package."""
    if not BENCHMARKS.is_dir():
        pytest.skip("the tests lie without the benchmarks")
    pytest.importorskip("triton")
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = set(sys.modules)
    yield
    for name in {*sys.modules} - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "").parent == BENCHMARKS:
            del sys.modules[name]
