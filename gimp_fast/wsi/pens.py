"""Pen marks on a slide, by colours that no common stain has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

_RIM = 2  # pixels around a stroke: its edge blends into the glass, in a colour of neither


@dataclass(frozen=True)
class _Ink:
    """Limits of the hue in degrees, and of saturation and brightness in 0 … 1."""

    hue: tuple[float, float]  # from the first to the second, through 360 if the first is larger
    saturation: tuple[float, float]
    brightness: tuple[float, float] = (0.0, 1.0)


# Haematoxylin, eosin and DAB have hues of 240 to 350 and 12 to 45 degrees where they are strong;
# pale haematoxylin is bluer, and red blood is as red as a pen, but both are less saturated.
_INKS = (
    _Ink((190, 245), (0.62, 1)),  # blue
    _Ink((65, 190), (0.25, 1)),  # green; glass that is faintly green has less
    _Ink((350, 12), (0.8, 1)),  # red
    _Ink((0, 360), (0, 0.2), (0, 0.32)),  # black: stained tissue as dark as this has a colour
)


def find_pens(rgb: np.ndarray, least: float) -> np.ndarray:
    """(h, w) bool: strokes of blue, green, red or black pens, and a rim of two pixels.

    Args:
        rgb: (h, w, 3) uint8, a picture of a whole slide.
        least: pixels of the smallest mark; smaller ones may be anything.
    """
    ink = np.zeros(rgb.shape[:2], bool)
    for top in range(0, len(rgb), 256):  # temporaries of a whole large picture would be larger
        ink[top : top + 256] = _is_ink(rgb[top : top + 256])
    if not ink.any():
        return ink
    ink = ndimage.binary_closing(np.pad(ink, 2, mode="edge"), np.ones((3, 3), bool))[2:-2, 2:-2]
    labels, count = ndimage.label(ink, np.ones((3, 3), bool))
    large = np.bincount(labels.ravel(), minlength=count + 1) >= least
    large[0] = False
    return ndimage.binary_dilation(large[labels], np.ones((3, 3), bool), iterations=_RIM)


def _is_ink(rgb: np.ndarray) -> np.ndarray:
    """(h, w) bool, pixel by pixel."""
    red, green, blue = np.moveaxis(rgb.astype(np.float32), -1, 0)
    largest, spread = rgb.max(-1).astype(np.float32), np.ptp(rgb, -1).astype(np.float32)
    safe = np.maximum(spread, 1)
    hue = np.select(
        [largest == red, largest == green],
        [(green - blue) / safe, 2 + (blue - red) / safe],
        4 + (red - green) / safe,
    )
    hue, saturation = hue * 60 % 360, spread / np.maximum(largest, 1)
    found = np.zeros(rgb.shape[:2], bool)
    for ink in _INKS:
        first, last = ink.hue
        in_hue = (hue >= first) & (hue <= last) if first <= last else (hue >= first) | (hue <= last)
        for value, (low, high) in ((saturation, ink.saturation), (largest / 255, ink.brightness)):
            in_hue &= (value >= low) & (value <= high)
        found |= in_hue
    return found
