"""The engine itself: whatever a command may do wrong is seen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from attack import laws
from attack.fork import Limits, run
from attack.sandbox import SECRET, Sandbox

sandbox = Sandbox(Path(sys.argv[2]))
for folder in (sandbox.inputs, sandbox.out, sandbox.work):
    folder.mkdir()
(sandbox.inputs / "a").write_text("a")

def fine(notes):
    print("error: found a; expected b")
    (sandbox.out / "x").write_text("x")
    return 2

def crash(notes):
    raise KeyError("x")

def end(notes):
    os.abort()

def hang(notes):
    time.sleep(60)

def busy(notes):
    while True:
        pass

def silent(notes):
    return 2

def large(notes):
    data = bytearray(1_500_000_000)
    data[::4096] = b"x" * len(data[::4096])

def noisy(notes):
    print("\\x1b[31m")

def warns(notes):
    import warnings
    warnings.warn("old")

def writes(notes):
    (sandbox.inputs / "a").write_text("bb")

def creates(notes):
    Path("pwned").touch()

def leaks(notes):
    (sandbox.out / "y").write_bytes(b"..." + SECRET)

def marks(notes):
    (sandbox.out / "y.html").write_text("<script>alert(1)</script>")

def multiplies(notes):
    torch.set_num_threads(2)
    torch.ones(600, 600) @ torch.ones(600, 600)

short, found = Limits(cpu_seconds=2, wall_seconds=5), {}
for action in (fine, crash, end, hang, busy, silent, large, noisy, warns, writes, creates, leaks,
               marks, multiplies):
    sandbox.empty_out()
    before = sandbox.snapshot()
    limits = short if action in (hang, busy) else Limits()  # the others may run on a busy machine
    outcome = run(action, folder=sandbox.work, limits=limits)
    breaches = [*laws.of_outcome("prepare", outcome),
                *laws.of_files(before, sandbox.snapshot(), sandbox.root),
                *laws.of_results(sandbox.out, outcome.output)]
    found[action.__name__] = [breach.law for breach in breaches]
print(json.dumps(found))
"""
EXPECTED = {
    "fine": [], "crash": ["traceback"], "end": ["exit code"], "hang": ["hang"], "busy": ["hang"],
    "silent": ["no message"], "large": ["memory"], "noisy": ["control character printed"],
    "warns": ["library warning"], "writes": ["file outside the output"],
    "creates": ["file outside the output"], "leaks": ["secret"], "marks": ["markup"],
    "multiplies": [],
}  # fmt: skip


@pytest.mark.slow
def test_every_law_can_be_broken(tmp_path):
    tests = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tests, tmp_path],
        capture_output=True, text=True, check=True, env={"OMP_NUM_THREADS": "1",
        "PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert json.loads(done.stdout) == EXPECTED
