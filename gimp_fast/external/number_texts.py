"""Scores, counts and draws in words, the same on the page, on the console and in a notebook."""

from __future__ import annotations

from gimp_fast.evaluation.intervals import Estimate
from gimp_fast.external.units import Units

_DIGITS = 3


def interval_text(found: Estimate | None, signed: bool = False) -> str:
    """``0.812 (0.760 to 0.861)``; a dash for a score that is not defined."""
    if found is None:
        return "–"
    value, low, high = (_number(number, "+" if signed else "") for number in vars(found).values())
    return f"{value} ({low} to {high})"


def signed_text(value: float) -> str:
    """``−0.012``."""
    return _number(value, "+z")


def _number(value: float, sign: str) -> str:
    return format(value, f"{sign}.{_DIGITS}f").replace("-", "−")


def counts_text(counts: dict[str, int]) -> str:
    """``21 LUAD, 20 LUSC`` or ``15 events``; empty for numbers."""
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def units_text(units: Units) -> str:
    """What the bootstrap draws, in a sentence."""
    return f"The bootstrap draws {units.count} {units.name}: {units.why}."
