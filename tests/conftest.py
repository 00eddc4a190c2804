"""Fixtures that every test folder shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from builders.cohorts import synthetic_cohort

from gimp_fast.data import Cohort, open_cohort

# Before anything imports triton, which asks only then: without a GPU its kernels are interpreted.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real patients, slides and expression files; tests that need it skip without it."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("GIMP_FAST_REALDATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set GIMP_FAST_REALDATA")
    return folder


@pytest.fixture(scope="session")
def cohort_folder(tmp_path_factory) -> Path:
    """A cohort of 40 synthetic patients; not to be changed."""
    return synthetic_cohort(tmp_path_factory.mktemp("synthetic"))


@pytest.fixture
def cohort(cohort_folder) -> Cohort:
    return open_cohort(cohort_folder)
