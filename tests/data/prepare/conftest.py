"""Inputs of `prepare`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from builders.prepare_inputs import Inputs, Raw

from gimp_fast.data.synthetic.patients import SyntheticConfig, write_synthetic_cohort

CONFIG = SyntheticConfig(
    num_patients=20, feature_dim=6, num_genes=30, median_patches=45, max_patches=60
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / "raw"
    write_synthetic_cohort(folder, CONFIG)
    return folder


@pytest.fixture
def raw(tmp_path, pristine) -> Raw:
    shutil.copytree(pristine, tmp_path / "raw")
    return Raw(tmp_path / "raw")


@pytest.fixture
def inputs(tmp_path) -> Inputs:
    return Inputs(tmp_path / "in")
