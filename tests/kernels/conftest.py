"""The interpreter of Triton, without work that it throws away."""

from __future__ import annotations

from dataclasses import replace

import pytest


@pytest.fixture(scope="session", autouse=True)
def _no_overflow_checks():
    """Interpret kernels without overflow checks, a third of the time.

    The interpreter computes the range of every integer, but asserts it in debug mode only.
    """
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    builder = interpreter.interpreter_builder
    assert not builder.options.debug
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "options", replace(builder.options, sanitize_overflow=False))
        yield
