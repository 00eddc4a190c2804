"""Patches as pixels of one small image, whatever their number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LONGEST = 1600  # pixels, as many as a screen shows; a patch of the longest slide has 2 or 3


@dataclass(frozen=True)
class Canvas:
    """A rectangle of the slide as an image.

    Attributes:
        left, top: its upper left corner, in the unit of the coordinates.
        scale: pixels of the image per unit.
        width, height: in pixels.
    """

    left: float
    top: float
    scale: float
    width: int
    height: int

    @classmethod
    def around(cls, coords: np.ndarray, size: float, longest: int = LONGEST) -> Canvas:
        """The smallest canvas that holds all patches and a margin of one patch.

        Args:
            coords: (N, 2) upper left corners, N ≥ 1.
            size: side of a patch.
            longest: most pixels of the longer side.
        """
        low, high = coords.min(0) - size, coords.max(0) + 2 * size
        extent = np.maximum(high - low, size)
        # At most 40 pixels a patch: a biopsy of ten patches needs no poster.
        scale = min(longest / extent.max(), 40 / size)
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
    """Mean value of the patches on each pixel; NaN where there is none.

    Args:
        canvas: the image.
        coords: (N, 2) upper left corners.
        size: side of a patch.
        values: (N,).

    Returns:
        (height, width) float32.
    """
    total = np.zeros((canvas.height, canvas.width), np.float32)
    count = np.zeros((canvas.height, canvas.width), np.float32)
    for (x0, x1, y0, y1), value in zip(
        canvas.boxes(coords, size).tolist(), values.tolist(), strict=True
    ):
        total[y0:y1, x0:x1] += value
        count[y0:y1, x0:x1] += 1
    with np.errstate(invalid="ignore"):
        return total / np.where(count > 0, count, np.nan)


def blend(ground: np.ndarray, values: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Coloured values laid over an image.

    Args:
        ground: (h, w, 3) float in 0 … 1.
        values: (h, w) in 0 … 100; NaN where only the ground shows.
        colours: (256, 4) float: colour and opacity of the values 0 to 100.

    Returns:
        (h, w, 3) float in 0 … 1.
    """
    shown = np.isfinite(values)
    steps = np.clip(np.nan_to_num(values) * 2.55, 0, 255).round().astype(np.uint8)
    picked = colours[steps]  # (h, w, 4)
    opacity = picked[..., 3:] * shown[..., None]
    return ground * (1 - opacity) + picked[..., :3] * opacity


def resample(image: np.ndarray, canvas: Canvas, downsample: tuple[float, float]) -> np.ndarray:
    """The part of a thumbnail under a canvas, white beyond it.

    Args:
        image: (h, w, 3) uint8, the whole slide.
        canvas: in pixels of level 0.
        downsample: pixels of level 0 per pixel of the image, along x and y.

    Returns:
        (height, width, 3) float in 0 … 1.
    """
    across = (canvas.left + (np.arange(canvas.width) + 0.5) / canvas.scale) / downsample[0]
    down = (canvas.top + (np.arange(canvas.height) + 0.5) / canvas.scale) / downsample[1]
    columns, rows = np.floor(across).astype(int), np.floor(down).astype(int)
    inside_x = (columns >= 0) & (columns < image.shape[1])
    inside_y = (rows >= 0) & (rows < image.shape[0])
    picked = image[
        np.clip(rows, 0, image.shape[0] - 1)[:, None], np.clip(columns, 0, image.shape[1] - 1)
    ]
    return np.where((inside_y[:, None] & inside_x)[..., None], picked / 255.0, 1.0)
