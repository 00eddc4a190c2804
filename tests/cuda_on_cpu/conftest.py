"""The programs of this folder, compiled once."""

from __future__ import annotations

import pytest
from builders.device_code import DeviceProgram, compiled


@pytest.fixture(scope="session")
def rows(tmp_path_factory) -> DeviceProgram:
    """The package's kernels over rows."""
    return compiled("rows.cpp", tmp_path_factory)


@pytest.fixture(scope="session")
def faults(tmp_path_factory) -> DeviceProgram:
    """Kernels that are wrong on purpose, beside right ones."""
    return compiled("faults.cpp", tmp_path_factory)
