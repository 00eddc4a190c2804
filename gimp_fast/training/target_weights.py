"""The weights of several targets, which stand after their names."""

from __future__ import annotations

import re


def weighted_name(text: str) -> tuple[str, float]:
    """``burden:0.5`` -> name and weight; ValueError for another text after the colon."""
    name, colon, weight = text.partition(":")
    if not colon:
        return text, 1.0
    if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", weight) or not float(weight):
        raise ValueError("names, and after a colon a weight above 0, as burden:0.5")
    return name, float(weight)
