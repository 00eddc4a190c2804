"""Pictures of slides for a browser: deep-zoom tiles, single patches, an overview."""

from __future__ import annotations

import io
import math
import os
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from gimp_fast.errors import GimpError

if TYPE_CHECKING:  # which would load torch
    from gimp_fast.heatmaps.protocols import ImageFolder, SlideImage


TILE = 256  # side in pixels
_OVERVIEW = 2048  # pixels of the longer side
_OPEN = 8  # slides that are kept open
_QUALITY = 82


class SlidePictures:
    """Pictures of the slides of a folder; threads may share it.

    Args:
        images: the folder; None shows no slide.
        slide_ids: of the slides; a page names them by their place here.
    """

    def __init__(self, images: ImageFolder | None, slide_ids: Sequence[str]):
        self._images, self._slide_ids = images, slide_ids
        self._lock = threading.Lock()
        # More would not be faster, and each reads some megabytes.
        self._cutting = threading.BoundedSemaphore(os.cpu_count() or 1)
        # A slide that falls out is not closed here: a thread may be reading it. It closes itself
        # when the last one lets go.
        self._open = lru_cache(_OPEN)(self._open_slide)

    def info(self, number: int) -> dict[str, Any]:
        """The size of a slide and its tiles, or ``missing``: a sentence on why there are none."""
        try:
            slide = self._slide(number)
        except GimpError as error:  # the patches can be shown without it
            return {"missing": str(error)}
        if slide is None:
            if self._images is None:
                return {"missing": "Slide images were not given (--slide-images)."}
            return {"missing": f"{self._images.folder} has no image of this slide."}
        width, height = slide.image.size
        levels = {"tile": TILE, "max_level": slide.max_level}
        return {"width": width, "height": height, "mpp": slide.image.mpp} | levels

    def tile(self, number: int, level: int, column: int, row: int) -> bytes | None:
        """A JPEG of one tile; None if there is none at that place."""
        slide = self._slide(number)
        if slide is None or not 0 <= level <= slide.max_level:
            return None
        with self._cutting:
            pixels = slide.tile(level, column, row)
        return None if pixels is None else jpeg(pixels)

    def patch(self, number: int, x: float, y: float, side: float, pixels: int) -> bytes | None:
        """A JPEG of a square of level 0, ``pixels`` wide; None without a slide."""
        slide = self._slide(number)
        if slide is None:
            return None
        with self._cutting:
            return jpeg(slide.image.region(x, y, side, pixels))

    def _slide(self, number: int) -> _OpenSlide | None:
        if self._images is None or not 0 <= number < len(self._slide_ids):
            return None
        with self._lock:  # else two requests would open the same slide
            return self._open(number)

    def _open_slide(self, number: int) -> _OpenSlide | None:
        image = self._images.open(self._slide_ids[number])
        return None if image is None else _OpenSlide(image)


class _OpenSlide:
    """A slide, and its overview, which coarse tiles are cut from."""

    def __init__(self, image: SlideImage):
        self.image = image
        self.max_level = math.ceil(math.log2(max(image.size)))  # where a pixel is one of level 0
        self._reading = threading.Lock()
        self._overview: Image.Image | None = None

    def tile(self, level: int, column: int, row: int) -> np.ndarray | None:
        """(h, w, 3) uint8, cut off at the edge of the slide; None beyond it."""
        step = 2 ** (self.max_level - level)  # pixels of level 0 a pixel
        width, height = (math.ceil(side / step) for side in self.image.size)
        left, top = column * TILE, row * TILE
        if column < 0 or row < 0 or left >= width or top >= height:
            return None
        wide, tall = min(TILE, width - left), min(TILE, height - top)
        # Of a slide without coarse levels, a coarse tile would need a large part of level 0.
        if max(self.image.size) <= step * _OVERVIEW:
            return self._from_overview(left, top, wide, tall, step)
        return self.image.region(left * step, top * step, TILE * step, TILE)[:tall, :wide]

    def _from_overview(self, left: int, top: int, wide: int, tall: int, step: int) -> np.ndarray:
        with self._reading:
            if self._overview is None:
                self._overview = Image.fromarray(self.image.thumbnail(_OVERVIEW))
        across, down = (o / s for o, s in zip(self._overview.size, self.image.size, strict=True))
        box = (left * step * across, top * step * down)
        end = ((left + wide) * step * across, (top + tall) * step * down)
        limits = self._overview.size
        box += tuple(min(place, limit) for place, limit in zip(end, limits, strict=True))
        part = self._overview.resize((wide, tall), Image.Resampling.BILINEAR, box, reducing_gap=2)
        return np.asarray(part)


def jpeg(pixels: np.ndarray, quality: int = _QUALITY) -> bytes:
    """(h, w, 3) uint8 as a JPEG."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="jpeg", quality=quality)
    return out.getvalue()
