"""Files that several machines use: whether one is there, and where it is for all of them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from pathlib import Path
from typing import Any, TypeVar

Value = TypeVar("Value")


def appears(path: Path, seconds: float = 30.0) -> bool:
    """Whether a file is there; one that another machine has just made may show after a while."""
    deadline = time.monotonic() + seconds
    while not path.is_file():
        if time.monotonic() > deadline:
            return False
        with contextlib.suppress(OSError):
            os.listdir(path.parent)  # asks a file server again, which `is_file` may not
        time.sleep(0.1)
    return True


def with_absolute_paths(value: Value) -> Value:
    """A dataclass or a tuple with all paths in it absolute: workers have another current folder."""
    if isinstance(value, Path):
        return value.absolute()
    if isinstance(value, tuple):
        return tuple(map(with_absolute_paths, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields: dict[str, Any] = {
            field.name: with_absolute_paths(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.init
        }
        return dataclasses.replace(value, **fields)
    return value


def paths_in(value: object) -> list[Path]:
    """All paths in a dataclass or a tuple."""
    if isinstance(value, Path):
        return [value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = tuple(getattr(value, field.name) for field in dataclasses.fields(value))
    return [path for item in value for path in paths_in(item)] if isinstance(value, tuple) else []
