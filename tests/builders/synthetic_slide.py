"""Synthetic slides for tests and benchmarks: pyramids with rectangles of tissue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels of level 0
GLASS = (243, 242, 244)
TISSUE = (190, 105, 160)
_NOISE = 12


def write_synthetic_slide(
    path: Path,
    size: tuple[int, int],
    tissue: Sequence[Box],
    *,
    mpp: float | None = 0.5,
    downsamples: Sequence[int] = (1, 4, 16),
    tile: int | None = 256,
    compression: str = "deflate",
    seed: int = 0,
) -> Path:
    """Write a TIFF pyramid tile by tile, so memory does not grow with the slide.

    Args:
        path: a ``.tif``.
        size: width, height of level 0 in pixels.
        tissue: rectangles of tissue; all else is glass.
        mpp: micrometres per pixel, written as the TIFF's resolution; None to record none.
        downsamples: of the levels; levels smaller than a tile are left out, except level 0.
        tile: side of the tiles; None for strips, which OpenSlide does not read, and which are
            held in memory.
        compression: a name that tifffile knows; ``jpeg`` needs imagecodecs.
        seed: of the texture.

    Returns:
        The path.
    """
    import tifffile

    texture = np.random.default_rng(seed).integers(-_NOISE, _NOISE + 1, (256, 256, 3), np.int16)
    resolution = None if mpp is None else (1e4 / mpp, 1e4 / mpp)
    kept = [n for n in downsamples if n == 1 or min(size) // n >= (tile or 1)]
    with tifffile.TiffWriter(path, bigtiff=size[0] * size[1] > 1 << 30) as out:
        for downsample in kept:
            width, height = size[0] // downsample, size[1] // downsample
            boxes = np.array(tissue, np.int64).reshape(-1, 4) // downsample
            tall, wide = (tile, tile) if tile else (height, width)
            out.write(
                _tiles(width, height, tall, wide, boxes, texture),
                shape=(height, width, 3),
                dtype=np.uint8,
                photometric="rgb",
                tile=(tile, tile) if tile else None,
                rowsperstrip=None if tile else 64,
                compression=compression,
                compressionargs={"level": 1} if compression == "deflate" else None,
                resolution=resolution and tuple(side / downsample for side in resolution),
                resolutionunit="CENTIMETER" if resolution else None,
                subfiletype=int(downsample > 1),
            )
    return path


def _tiles(
    width: int, height: int, tall: int, wide: int, boxes: np.ndarray, texture: np.ndarray
) -> Iterator[np.ndarray]:
    for top in range(0, height, tall):
        for left in range(0, width, wide):
            pixels = np.full((tall, wide, 3), GLASS, np.int16)
            for box in boxes - (left, top, left, top):
                x, y, x_end, y_end = np.clip(box, 0, [wide, tall, wide, tall])
                if x < x_end and y < y_end:
                    # Shifted by position, so that no two patches are alike.
                    rows = (np.arange(top + y, top + y_end) + 37 * (left // 256)) % 256
                    columns = (np.arange(left + x, left + x_end) + 53 * (top // 256)) % 256
                    pixels[y:y_end, x:x_end] = TISSUE + texture[np.ix_(rows, columns)]
            yield pixels.clip(0, 255).astype(np.uint8)
