"""Fixtures of the operators' tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from gimp_fast.ops import product_library
from gimp_fast.ops.product_library import ENVIRONMENT_VARIABLE, ONEDNN, TORCH


@pytest.fixture
def choose_library(monkeypatch) -> Iterator[Callable[[str], None]]:
    """``choose_library(name)`` lets that library multiply large matrices; "auto": the table."""

    def choose(name: str) -> None:
        if name == ONEDNN and product_library.why_no_onednn():
            pytest.skip(product_library.why_no_onednn())
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, name)
        product_library._lasting_choice.cache_clear()

    yield choose
    product_library._lasting_choice.cache_clear()


@pytest.fixture(params=[TORCH, ONEDNN])
def library(request, choose_library) -> str:
    """Each library in turn multiplies large matrices."""
    choose_library(request.param)
    return request.param
