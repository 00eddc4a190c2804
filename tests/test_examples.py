"""The examples run as they stand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the tests lie without the examples"),
]


@pytest.mark.parametrize("script", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_an_example_runs(script, tmp_path):
    done = subprocess.run(
        [sys.executable, EXAMPLES / script, tmp_path / "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    metrics = json.loads((tmp_path / "out" / "run" / "metrics.json").read_text())
    assert metrics["test"]["n"] == 24


def test_an_interrupted_example_is_one_line(tmp_path):
    out = tmp_path / "out"
    example = subprocess.Popen(
        [sys.executable, EXAMPLES / "train_on_your_patients.py", out],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what runs in the background with Ctrl-C ignored.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        start_new_session=True,  # the signal goes to all its processes, as that of a terminal
    )
    while not (out / "run" / "metrics.jsonl").exists() and example.poll() is None:
        time.sleep(0.05)
    os.killpg(example.pid, signal.SIGINT)
    said = example.communicate()[1]
    assert example.returncode == 130, said
    assert "Traceback" not in said
    assert said.rstrip().splitlines()[-1].endswith("the state is saved. Continue with --resume.")
