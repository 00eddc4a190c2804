"""What the bootstrap of a validation draws."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Units:
    """What the bootstrap draws: ``"hospitals"`` or ``"patients"``, how many, and why."""

    name: str
    count: int
    why: str
