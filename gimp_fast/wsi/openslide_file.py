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
from gimp_fast.wsi.tiff_resolution import is_ome, resolution_of

GENERIC_TIFF = "generic-tiff"
_UNITS = {"inch": 2, "centimeter": 3}  # OpenSlide's words for the tag ResolutionUnit


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
            generic = self._slide.properties.get("openslide.vendor") == GENERIC_TIFF
            self.is_ome = generic and is_ome(_description(self._slide))
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
    vendor = get("openslide.vendor", "unknown")
    mpp, remark = (number(get("openslide.mpp-x")), number(get("openslide.mpp-y"))), ""
    if vendor == GENERIC_TIFF:  # whose description OpenSlide does not read
        tags = number(get("tiff.XResolution")), number(get("tiff.YResolution"))
        unit = _UNITS.get(get("tiff.ResolutionUnit"))
        mpp, remark = resolution_of(_description(slide), slide.dimensions, tags, unit)
    power = number(get("openslide.objective-power"))
    resolution = checked_resolution(mpp, power, remark)
    return SlideFacts(path, f"openslide {vendor}", levels, *resolution, _bounds(slide))


def _description(slide: openslide.OpenSlide) -> str:
    return slide.properties.get("tiff.ImageDescription", "")


def _bounds(slide: openslide.OpenSlide) -> tuple[int, int, int, int] | None:
    """Left, top, width and height of the scanned area, in formats that record it."""
    get, (width, height) = slide.properties.get, slide.dimensions
    sides = [number(get(f"openslide.bounds-{name}")) for name in ("x", "y", "width", "height")]
    if sides == [None] * 4:
        return None
    defaults = (0, 0, width, height)
    return tuple(int(d if n is None else n) for n, d in zip(sides, defaults, strict=True))


@contextlib.contextmanager
def _openslide_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (*DAMAGE_ERRORS, openslide.OpenSlideError) as error:
        expected = "a whole, undamaged slide"
        raise FaultError.of("unreadable-slide", path, one_line(error), expected) from error
