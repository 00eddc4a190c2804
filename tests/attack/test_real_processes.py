"""What a fork cannot show: a locale without other letters, and a machine without /dev/shm."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from attack.names import Name, write

pytestmark = pytest.mark.slow
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def inputs(tmp_path) -> Path:
    write(tmp_path / "in", Name("class", "Größe"))
    return tmp_path / "in"


def argv(inputs: Path) -> list[str]:
    words = ["--slides", inputs / "slides", "--rna", inputs / "rna.csv", "--pack", "fp32"]
    words += ["--labels", inputs / "labels.csv", "--out", inputs.with_name("out")]
    return [sys.executable, "-m", "gimp_fast.prepare", *map(str, words)]


def run(words: list[str], **variables: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **variables}
    done = subprocess.run(words, env=environment, capture_output=True, check=False)
    printed = (done.stdout + done.stderr).decode("utf-8", "replace")
    assert done.returncode == 0, printed
    return printed


def test_a_terminal_without_other_letters(inputs):
    assert r"Gr\xf6\xdfe" in run(argv(inputs), **ASCII)
    patients = inputs.with_name("out") / "patients.csv"
    assert "Größe" in patients.read_text(encoding="utf-8")


def test_a_machine_without_shared_memory(inputs):
    if os.geteuid() or shutil.which("unshare") is None:
        pytest.skip("only root can hide /dev/shm")
    hidden = 'mount -t tmpfs -o ro,size=4k none /dev/shm && exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", hidden, "sh", *argv(inputs)]
    if subprocess.run([*words[:5], "sh", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount of our own is allowed here")
    assert "cohort written" in run(words)
