"""Patches as pixels of one small image, whatever their number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LONGEST = 1600  # pixels, as many as a screen shows; a patch of the longest slide has 2 or 3


@dataclass(frozen=True)
class Canvas:
    """A rectangle of the slide as an image of ``width`` × ``height`` pixels.

    Attributes:
        left, top: its upper left corner, in the unit of the coordinates.
        scale: pixels of the image per unit.
    """

    left: float
    top: float
    scale: float
    width: int
    height: int

    @classmethod
    def around(cls, coords: np.ndarray, size: float) -> Canvas:
        """The smallest canvas that holds all patches and a margin of one patch.

        Args:
            coords: (N, 2) upper left corners, N ≥ 1.
            size: side of a patch.
        """
        low, high = coords.min(0) - size, coords.max(0) + 2 * size
        extent = np.maximum(high - low, size)
        # At most 40 pixels a patch: a biopsy of ten patches needs no poster.
        scale = min(LONGEST / extent.max(), 40 / size)
        width, height = np.maximum(np.ceil(extent * scale), 1).astype(int)
        return cls(float(low[0]), float(low[1]), float(scale), int(width), int(height))

    def boxes(self, coords: np.ndarray, size: float) -> np.ndarray:
        """(N, 4) int: first and last-plus-one column, then row, of each patch; never empty."""
        corners = np.stack([coords, coords + size], 1) - (self.left, self.top)  # (N, 2, 2)
        pixels = np.round(corners * self.scale).astype(np.int64)
        first = np.clip(pixels[:, 0], 0, (self.width - 1, self.height - 1))
        last = np.clip(pixels[:, 1], first + 1, (self.width, self.height))
        return np.stack([first[:, 0], last[:, 0], first[:, 1], last[:, 1]], 1)


def rasterise(canvas: Canvas, coords: np.ndarray, size: float, values: np.ndarray) -> np.ndarray:
    """(height, width) float32: mean value of the patches on each pixel; NaN where there is none.

    Args:
        canvas: the image.
        coords: (N, 2) upper left corners.
        size: side of a patch.
        values: (N,).
    """
    total, count = np.zeros((2, canvas.height, canvas.width), np.float32)
    boxes = canvas.boxes(coords, size).tolist()
    for (x0, x1, y0, y1), value in zip(boxes, values.tolist(), strict=True):
        total[y0:y1, x0:x1] += value
        count[y0:y1, x0:x1] += 1
    with np.errstate(invalid="ignore"):
        return total / np.where(count > 0, count, np.nan)


def blend(ground: np.ndarray, values: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """(h, w, 3) float in 0 … 1: coloured values laid over an image.

    Args:
        ground: (h, w, 3) float in 0 … 1.
        values: (h, w) in 0 … 100; NaN where only the ground shows.
        colours: (256, 4) float: colour and opacity of the values 0 to 100.
    """
    steps = np.clip(np.nan_to_num(values) * 2.55, 0, 255).round().astype(np.uint8)
    picked = colours[steps]  # (h, w, 4)
    opacity = picked[..., 3:] * np.isfinite(values)[..., None]
    return ground * (1 - opacity) + picked[..., :3] * opacity


def resample(image: np.ndarray, canvas: Canvas, size: tuple[int, int]) -> np.ndarray:
    """(height, width, 3) float in 0 … 1: the part of a slide under a canvas, white beyond it.

    Args:
        image: (h, w, 3) uint8, the whole slide.
        canvas: in pixels of level 0.
        size: width and height of the slide at level 0.
    """
    rows, columns = image.shape[:2]
    across = (canvas.left + (np.arange(canvas.width) + 0.5) / canvas.scale) / (size[0] / columns)
    down = (canvas.top + (np.arange(canvas.height) + 0.5) / canvas.scale) / (size[1] / rows)
    x, y = np.floor(across).astype(int), np.floor(down).astype(int)
    inside = ((y >= 0) & (y < rows))[:, None] & (x >= 0) & (x < columns)
    picked = image[np.clip(y, 0, rows - 1)[:, None], np.clip(x, 0, columns - 1)]
    return np.where(inside[..., None], picked / 255.0, 1.0)
