"""The native library under every instruction set of this processor, on any number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from gimp_fast import native

NATIVE = native.load().cpu


def _sets() -> list[str]:
    if NATIVE != native.AVAILABLE:
        return []
    from gimp_fast import _C

    return _C.instruction_sets()


@contextmanager
def on_instruction_set(name: str) -> Iterator[None]:
    """Lets the native operators use another instruction set of this processor."""
    from gimp_fast import _C

    before = _C.instruction_set()
    _C.use_instruction_set(name)
    try:
        yield
    finally:
        _C.use_instruction_set(before)


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# A test with this mark takes the fixture `instruction_set` and runs once with each.
each_instruction_set = pytest.mark.parametrize("instruction_set", _sets(), indirect=True)
