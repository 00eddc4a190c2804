"""Shapes for which launches and operations of a layer are counted."""

from __future__ import annotations

# Bags in a batch, or packed, and the tokens of each.
SHAPES = {
    "one": (1, 6000, False),
    "batch-of-8": (8, 6000, False),
    "batch-of-128": (128, 6000, False),
    "slide": (1, 148_569, False),
    "300-packed": (300, 1000, True),
}
