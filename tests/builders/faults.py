"""What a test asks of a FaultError."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gimp_fast.errors import FaultError


def faults_of(action: Callable[[], object]) -> list[tuple[str, str]]:
    """(kind, text) of the faults that an action raises."""
    with pytest.raises(FaultError) as error:
        action()
    return [(fault.kind, str(fault)) for fault in error.value.faults]


def kinds_of(action: Callable[[], object]) -> list[str]:
    """Kinds of the faults that an action raises."""
    return [kind for kind, _ in faults_of(action)]
