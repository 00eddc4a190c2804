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
    """A picture of the slide with its patches and tissue drawn over it.

    Args:
        rgb: (h, w, 3) uint8, the whole slide.
        mask: (h', w') bool, the tissue of the whole slide; None if the patches were given.
        patches: of the slide.

    Returns:
        (H, W, 3) uint8, at least about 1000 pixels long.
    """
    enlarge = max(1, round(_LEAST_SIDE / max(rgb.shape)))
    picture = rgb.copy() if enlarge == 1 else rgb.repeat(enlarge, 0).repeat(enlarge, 1)
    height, width = picture.shape[:2]
    scale = np.array([width / patches.facts.width, height / patches.facts.height])
    boxes = _boxes(patches.coords, patches.plan.size_level0, scale, np.array([width, height]))
    covered, lines = np.zeros((2, height, width), bool)
    for left, top, right, bottom in boxes:
        covered[top:bottom, left:right] = True
        lines[[top, bottom - 1], left:right] = True
        lines[top:bottom, [left, right - 1]] = True
    for row, taken, line in zip(
        picture, covered, lines, strict=True
    ):  # row by row: small temporaries
        row[~taken] = 255 - _LEFT_OUT * (255 - row[~taken].mean(-1, keepdims=True))
        row[line] = 0.4 * row[line] + 0.6 * np.array(_GRID)
    if mask is not None:
        picture[_outline(mask, width, height)] = _OUTLINE
    return picture


def write_overlay(path: Path, picture: np.ndarray) -> None:
    """Write a PNG atomically."""
    with atomic_file(path) as partial, partial.open("wb") as file:
        Image.fromarray(picture).save(file, format="png")


def _boxes(coords: np.ndarray, size: int, scale: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """(N, 4) left, top, right, bottom in pixels of the picture: inside it and not empty."""
    first = np.minimum(np.rint(coords * scale).astype(np.int64), limit - 1)
    last = np.rint((coords + size) * scale).astype(np.int64)
    return np.concatenate([first, np.clip(last, first + 1, limit)], -1)


def _outline(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    large = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
    return large & ~ndimage.binary_erosion(large, np.ones((5, 5), bool), border_value=1)
