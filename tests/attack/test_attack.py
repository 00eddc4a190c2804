"""A part of the attacks; `make attack` carries out all of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
RUN = Path(__file__).with_name("run.py")
PART = ("--one-in", "190", "--seed", "7", "--jobs", "1")


@pytest.fixture(scope="module")
def part(tmp_path_factory) -> list[dict]:
    """Rows of a small part of the attacks."""
    for library in ("anndata", "openslide", "pyarrow", "tifffile", "zarr"):
        pytest.importorskip(library)
    file = tmp_path_factory.mktemp("attack") / "rows.json"
    done = subprocess.run(
        [sys.executable, RUN, *PART, "--json", file], capture_output=True, text=True, check=False
    )
    assert file.is_file(), done.stdout + done.stderr
    return json.loads(file.read_text(encoding="utf-8"))


def test_no_input_breaks_a_law(part):
    broken = [(row["name"], row["index"], row["way"], row["breaches"]) for row in part]
    assert [row for row in broken if row[3]] == []


def test_all_kinds_of_attacks_are_among_them(part):
    assert {row["command"] for row in part} >= {"extract", "prepare", "predict", "heatmap"}
    kinds = {row["name"].partition("/")[0] for row in part}
    assert kinds == {"mutation", "kill", "condition", "name"}


def test_most_damage_is_noticed(part):
    codes = [row["codes"][0] for row in part if row["name"].startswith("mutation")]
    assert codes.count(2) > 0.3 * len(codes)
    assert codes.count(0) > 0.1 * len(codes)
