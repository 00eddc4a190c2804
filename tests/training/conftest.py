"""A small synthetic cohort."""

from __future__ import annotations

from pathlib import Path

import pytest

from gimp_fast.data import Cohort, open_cohort
from gimp_fast.data.synthetic import SyntheticConfig, prepare_synthetic


@pytest.fixture(scope="session")
def cohort_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    config = SyntheticConfig(
        num_patients=40, feature_dim=8, num_genes=60, min_patches=5, median_patches=30
    )
    prepare_synthetic(folder / "out", config)
    return folder / "out" / "cohort"


@pytest.fixture
def cohort(cohort_folder) -> Cohort:
    return open_cohort(cohort_folder)
