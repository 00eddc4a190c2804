"""Fixtures that every test folder shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real patients, slides and expression files; tests that need it skip without it."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("GIMP_FAST_REALDATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set GIMP_FAST_REALDATA")
    return folder
