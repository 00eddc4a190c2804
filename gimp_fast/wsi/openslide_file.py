"""Slides that OpenSlide reads: Aperio, Hamamatsu, Leica, MIRAX, Ventana, DICOM, tiled TIFF …"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openslide
from PIL import Image

from gimp_fast.errors import DAMAGE_ERRORS, FaultError, one_line
from gimp_fast.wsi.resolution import checked_resolution, number
from gimp_fast.wsi.slide import Level, SlideFacts, WholeSlide


def recognises(path: Path) -> bool:
    """Whether OpenSlide knows the format; damage may show only when the slide is read."""
    with _openslide_errors(path):
        return openslide.OpenSlide.detect_format(path) is not None


class OpenSlideFile(WholeSlide):
    """An open slide; see ``open_wsi``."""

    def __init__(self, path: Path):
        with contextlib.ExitStack() as undo, _openslide_errors(path):
            self._slide = undo.enter_context(openslide.OpenSlide(path))
            super().__init__(_facts(path, self._slide))
            undo.pop_all()

    def read(self, x: int, y: int, level: int, width: int, height: int) -> np.ndarray:
        with _openslide_errors(self.facts.path):
            region = self._slide.read_region((x, y), level, (width, height))
        return over_white(region)

    def close(self) -> None:
        self._slide.close()


def over_white(region: Image.Image) -> np.ndarray:
    """(h, w, 3) uint8 of straight-alpha RGBA: transparent pixels, never scanned, become white."""
    rgba = np.asarray(region)
    if rgba[..., 3].min(initial=255) == 255:
        return np.asarray(region.convert("RGB"))
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return (rgba[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)


def _facts(path: Path, slide: openslide.OpenSlide) -> SlideFacts:
    pyramid = zip(slide.level_dimensions, slide.level_downsamples, strict=True)
    levels = tuple(Level(*size, float(downsample)) for size, downsample in pyramid)
    get = slide.properties.get
    mpp = number(get("openslide.mpp-x")), number(get("openslide.mpp-y"))
    resolution = checked_resolution(mpp, number(get("openslide.objective-power")))
    reader = f"openslide {get('openslide.vendor', 'unknown')}"
    return SlideFacts(path, reader, levels, *resolution)


@contextlib.contextmanager
def _openslide_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (*DAMAGE_ERRORS, openslide.OpenSlideError) as error:
        expected = "a whole, undamaged slide"
        raise FaultError.of("unreadable-slide", path, one_line(error), expected) from error
