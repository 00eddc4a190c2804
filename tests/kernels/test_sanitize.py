"""The scripts that run every kernel under compute-sanitizer, as far as possible without a GPU."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")
pytestmark = pytest.mark.triton
HERE = Path(__file__).parent


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_small_cases_hold_the_kernels_to_the_references():
    small_cases = load("small_cases")
    assert small_cases.attention_case((7,), 16, 13, torch.float32) < 1e-5
    assert small_cases.attention_case((20, 1), 16, 16, torch.float32) < 1e-5
    assert small_cases.token_conv_case((20, 0, 1), 13, 5, torch.float32) < 1e-6


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_sanitizer_says_that_it_is_skipped(capsys):
    assert load("sanitize").main([]) == 0
    assert "skipped: compute-sanitizer needs a CUDA GPU" in capsys.readouterr().out


def test_memcheck_and_racecheck_run_every_case():
    sanitize = load("sanitize")
    for tool in sanitize.TOOLS:
        command = sanitize.command(tool, "compute-sanitizer")
        assert command[:3] == ["compute-sanitizer", "--tool", tool]
        assert command[-1] == str(HERE / "small_cases.py")
        assert "--error-exitcode" in command
