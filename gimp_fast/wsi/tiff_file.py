"""TIFFs that OpenSlide does not read (strips, OME-TIFF), or all of them without OpenSlide."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

from gimp_fast.errors import DAMAGE_ERRORS, FaultError, one_line
from gimp_fast.wsi.resolution import checked_resolution, number
from gimp_fast.wsi.slide import Level, SlideFacts, WholeSlide
from gimp_fast.wsi.tiff_resolution import Sides, has_document_type, resolution_of

CACHE_BYTES = 64 << 20  # of decoded tiles in memory, or one tile if it is larger
# tifffile logs what it then raises.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class TiffSlide(WholeSlide):
    """An open slide; see ``open_wsi``. Errors say so if OpenSlide was tried first."""

    def __init__(self, path: Path, refused_by_openslide: bool = False):
        self._errors = functools.partial(_tiff_errors, path, refused_by_openslide)
        with contextlib.ExitStack() as undo, self._errors():
            self._file = undo.enter_context(tifffile.TiffFile(path))
            self._file.filehandle.set_lock(True)
            self._pages = _pages(path, self._file)
            self.can_decode = all(map(decodes, self._pages))
            largest = max(math.prod(page.chunks) for page in self._pages)
            self._tile = functools.lru_cache(max(1, CACHE_BYTES // largest))(self._decode)
            super().__init__(_facts(path, self._file, self._pages))
            undo.pop_all()

    def read(self, x: int, y: int, level: int, width: int, height: int) -> np.ndarray:
        page, scale = self._pages[level], self.facts.levels[level].downsample
        left, top = round(x / scale), round(y / scale)
        right, bottom = min(left + width, page.shape[1]), min(top + height, page.shape[0])
        tall, wide = page.chunks[:2]
        tiles_across = -(-page.shape[1] // wide)
        region = np.full((height, width, 3), 255, np.uint8)
        with self._errors():
            for y_tile in range(max(top, 0) // tall * tall, bottom, tall):
                for x_tile in range(max(left, 0) // wide * wide, right, wide):
                    tile = self._tile(level, y_tile // tall * tiles_across + x_tile // wide)
                    x0, y0 = max(left, x_tile), max(top, y_tile)
                    x1, y1 = max(x0, min(right, x_tile + wide)), max(y0, min(bottom, y_tile + tall))
                    part = tile[y0 - y_tile : y1 - y_tile, x0 - x_tile : x1 - x_tile]
                    region[y0 - top : y1 - top, x0 - left : x1 - left] = part
        return region

    def _decode(self, level: int, index: int) -> np.ndarray:
        """(h, w, 3) uint8."""
        page, handle = self._pages[level], self._file.filehandle
        size = page.databytecounts[index]
        with handle.lock:
            handle.seek(page.dataoffsets[index])
            data = handle.read(size)
        if len(data) < size:
            raise EOFError(f"tile {index} has {len(data)} of {size} bytes")
        segment, _, shape = page.decode(data, index, jpegtables=page.jpegtables)
        if segment is None:  # never scanned
            return np.full((shape[1], shape[2], 3), 255, np.uint8)
        return np.ascontiguousarray(segment[0, : shape[1], : shape[2], :3])

    def close(self) -> None:
        self._file.close()


def decodes(page: tifffile.TiffPage) -> bool:
    """Whether there is a codec for the pixels; some are in the package imagecodecs."""
    return page.compression in tifffile.TIFF.DECOMPRESSORS


def _pages(path: Path, file: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """The levels of the largest image, finest first; FaultError unless they are 8-bit RGB."""
    if file.pages and has_document_type(_description(file)):
        # tifffile would expand its entities.
        found, expected = "a description with an XML document type", "OME-XML, which has none"
        raise FaultError.of("unreadable-slide", path, found, expected)
    if not file.series:
        raise FaultError.of("unreadable-slide", path, "no image", "a whole, undamaged TIFF")
    # Before the slide there may be its label, or an overview of the glass.
    series = max(file.series, key=lambda one: math.prod(one.levels[0].pages[0].aspage().shape[:2]))
    pages = [level.pages[0].aspage() for level in series.levels]
    for page in pages:
        colour = len(page.shape) == 3 and page.shape[2] in (3, 4) and page.planarconfig == 1
        if page.dtype != np.uint8 or not colour:
            found = f"an image of shape {page.shape}, {page.dtype}, {page.photometric.name}"
            raise FaultError.of("pixel-format", path, found, "8-bit RGB, (height, width, 3)")
    return pages


def _facts(path: Path, file: tifffile.TiffFile, pages: list[tifffile.TiffPage]) -> SlideFacts:
    height, width = pages[0].shape[:2]
    levels = tuple(
        Level(page.shape[1], page.shape[0], (width / page.shape[1] + height / page.shape[0]) / 2)
        for page in pages
    )
    text = pages[0].description or ""
    aperio_mpp, aperio_magnification = _aperio("MPP", text), _aperio("AppMag", text)
    mpp, remark = (aperio_mpp, aperio_mpp), ""
    if aperio_mpp is None:
        tags, unit = _tags(pages[0]), pages[0].tags.valueof("ResolutionUnit")
        mpp, remark = resolution_of(_description(file), (width, height), tags, unit)
    resolution = checked_resolution(mpp, aperio_magnification, remark)
    return SlideFacts(path, "tifffile", levels, *resolution)


def _description(file: tifffile.TiffFile) -> str:
    """Of the first page, where OME-XML and ImageJ's text are."""
    return file.pages.first.description or ""


def _aperio(name: str, description: str) -> float | None:
    match = re.search(rf"\b{name}\s*=\s*([0-9.]+)", description)
    return number(match[1]) if match else None


def _tags(page: tifffile.TiffPage) -> Sides:
    """XResolution and YResolution, in pixels per unit."""
    sides = [page.tags.valueof(name) for name in ("XResolution", "YResolution")]
    across, down = (side[0] / side[1] if side and side[1] else None for side in sides)
    return across, down


@contextlib.contextmanager
def _tiff_errors(path: Path, refused: bool) -> Iterator[None]:
    try:
        yield
    except (*DAMAGE_ERRORS, tifffile.TiffFileError, struct.error, zlib.error) as error:
        text, expected = one_line(error), "a whole, undamaged TIFF"
        if "imagecodecs" in text:
            text = "pixels in a codec that needs the package imagecodecs"
            expected = "that package, or openslide-bin"
        if refused:
            text += "; OpenSlide does not recognise the file either"
            expected += "; a scanner's slide that OpenSlide does not recognise is damaged"
        raise FaultError.of("unreadable-slide", path, text, expected) from error
