"""A small picture of a whole slide, read in blocks, so memory does not grow with level 0."""

from __future__ import annotations

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
    picture = np.empty((height, width, 3), np.uint8)
    columns = max(1, int(_BLOCK / across))
    rows = max(1, int(_BLOCK / down))
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        for left in range(0, width, columns):
            right = min(left + columns, width)
            box = (left * across, top * down, right * across, bottom * down)
            picture[top:bottom, left:right] = _read_box(
                slide, level, box, right - left, bottom - top
            )
    return picture


def _read_box(
    slide: WholeSlide, level: int, box: tuple[float, ...], width: int, height: int
) -> np.ndarray:
    """A box with fractional corners, in pixels of the level, as (height, width, 3) uint8."""
    source = slide.facts.levels[level]
    x, y = int(box[0]), int(box[1])
    x_end = min(math.ceil(box[2] - 1e-6), source.width)
    y_end = min(math.ceil(box[3] - 1e-6), source.height)
    scale = source.downsample
    pixels = slide.read(round(x * scale), round(y * scale), level, x_end - x, y_end - y)
    inside = (box[0] - x, box[1] - y, min(box[2], x_end) - x, min(box[3], y_end) - y)
    picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX, box=inside)
    return np.asarray(picture)
