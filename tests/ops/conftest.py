"""Fixtures of the operators' tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from builders.native import on_instruction_set

from gimp_fast.ops import native_linear, product_library
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


@pytest.fixture
def nothing_native(monkeypatch) -> None:
    """No linear layer is so small that it goes to the native operators."""
    monkeypatch.setattr(native_linear, "LARGEST", -1)
    monkeypatch.setattr(native_linear, "LONGEST", -1)


@pytest.fixture(params=[TORCH, ONEDNN])
def library(request, choose_library, nothing_native) -> str:
    """Each library in turn multiplies large matrices."""
    choose_library(request.param)
    return request.param


@pytest.fixture
def instruction_set(request) -> Iterator[str]:
    """The native operators use this instruction set; see ``builders.native``."""
    with on_instruction_set(request.param):
        yield request.param
