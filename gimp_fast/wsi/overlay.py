"""A picture for checking an extraction: the slide, its tissue outlined, its patches as squares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from gimp_fast.files.atomic import atomic_file
from gimp_fast.wsi.grid import PatchSet

_OUTLINE = (0, 110, 60)
_GRID = (30, 90, 200)
_LEFT_OUT = 0.45  # contrast of what no patch covers
_LEAST_SIDE = 1000


def draw_overlay(rgb: np.ndarray, mask: np.ndarray | None, patches: PatchSet) -> np.ndarray:
    """(H, W, 3) uint8, at least about 1000 pixels long: the slide, its patches, its tissue.

    Args:
        rgb: (h, w, 3) uint8, the whole slide.
        mask: (h', w') bool, the tissue of the whole slide; None if the patches were given.
        patches: of the slide.
    """
    enlarge = max(1, round(_LEAST_SIDE / max(rgb.shape)))
    picture = rgb.repeat(enlarge, 0).repeat(enlarge, 1)
    height, width = picture.shape[:2]
    # Corners in pixels of the picture: every patch is inside it and not empty.
    size = np.array([width, height])
    scale = size / [patches.facts.width, patches.facts.height]
    first = np.minimum(np.rint(patches.coords * scale).astype(np.int64), size - 1)
    last = np.rint((patches.coords + patches.plan.size_level0) * scale).astype(np.int64)
    last = np.clip(last, first + 1, size)
    covered, lines = np.zeros((2, height, width), bool)
    for (left, top), (right, bottom) in zip(first, last, strict=True):
        covered[top:bottom, left:right] = True
        lines[[top, bottom - 1], left:right] = True
        lines[top:bottom, [left, right - 1]] = True
    # Row by row, which keeps temporaries small.
    for row, taken, line in zip(picture, covered, lines, strict=True):
        row[~taken] = 255 - _LEFT_OUT * (255 - row[~taken].mean(-1, keepdims=True))
        row[line] = 0.4 * row[line] + 0.6 * np.array(_GRID)
    if mask is not None:
        large = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
        inside = ndimage.binary_erosion(large, np.ones((5, 5), bool), border_value=1)
        picture[np.asarray(large) & ~inside] = _OUTLINE
    return picture


def write_overlay(path: Path, picture: np.ndarray) -> None:
    """Write a PNG atomically."""
    with atomic_file(path) as partial:
        Image.fromarray(picture).save(partial, format="png")
