"""Code that other processes can import."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture
def module_of(tmp_path, monkeypatch) -> Callable[[str, str], ModuleType]:
    """(name, source) -> a module in ``tmp_path``; other processes cannot import a test module."""

    def write_and_import(name: str, source: str) -> ModuleType:
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return write_and_import
