"""A small picture of a whole slide, read in blocks, so memory does not grow with level 0."""

from __future__ import annotations

import itertools
import math

import numpy as np
from PIL import Image

from gimp_fast.wsi.slide import WholeSlide

_BLOCK = 2048  # side of a block, in pixels of the level that is read
_LEAST_SIDE = 1000  # small slides get a finer picture, for people to look at


def read_overview(slide: WholeSlide, level0_mpp: float, mpp: float) -> tuple[np.ndarray, int]:
    """The whole slide at ``mpp`` / k micrometres per pixel.

    Args:
        slide: open.
        level0_mpp: micrometres per pixel of its level 0.
        mpp: the resolution of ``reduce(picture, k)``.

    Returns:
        (h, w, 3) uint8, and k ≥ 1. Both sides are multiples of k if the slide has enough pixels.
    """
    facts = slide.facts
    scale = max(1.0, mpp / level0_mpp)
    longest = max(facts.width, facts.height)
    finer = max(1, min(math.ceil(_LEAST_SIDE * scale / longest), math.floor(scale)))
    width = max(1, round(facts.width / scale)) * finer
    height = max(1, round(facts.height / scale)) * finer
    return _read_reduced(slide, min(width, facts.width), min(height, facts.height)), finer


def reduce(picture: np.ndarray, factor: int) -> np.ndarray:
    """The mean of squares of factor × factor pixels."""
    return picture if factor == 1 else np.asarray(Image.fromarray(picture).reduce(factor))


def _read_reduced(slide: WholeSlide, width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8: each pixel is the mean of the pixels of the level under it."""
    facts = slide.facts
    level = facts.level_for(min(facts.width / width, facts.height / height))
    source = facts.levels[level]
    across, down = source.width / width, source.height / height
    columns, rows = max(1, int(_BLOCK / across)), max(1, int(_BLOCK / down))
    picture = np.empty((height, width, 3), np.uint8)
    for top, left in itertools.product(range(0, height, rows), range(0, width, columns)):
        bottom, right = min(top + rows, height), min(left + columns, width)
        # The block in the level has fractional corners: read the whole pixels around it.
        x, y = int(left * across), int(top * down)
        x_end = min(math.ceil(right * across - 1e-6), source.width)
        y_end = min(math.ceil(bottom * down - 1e-6), source.height)
        corner = round(x * source.downsample), round(y * source.downsample)
        pixels = Image.fromarray(slide.read(*corner, level, x_end - x, y_end - y))
        ends = min(right * across, x_end) - x, min(bottom * down, y_end) - y
        box = (left * across - x, top * down - y, *ends)
        block = pixels.resize((right - left, bottom - top), Image.Resampling.BOX, box)
        picture[top:bottom, left:right] = np.asarray(block)
    return picture
