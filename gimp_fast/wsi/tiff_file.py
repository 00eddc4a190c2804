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

CACHE_BYTES = 64 << 20  # of decoded tiles in memory, or one tile if it is larger
# tifffile logs what it then raises.
logging.getLogger("tifffile").addHandler(logging.NullHandler())
_MICROMETRES = {2: 25400.0, 3: 10000.0}  # per unit of the tag ResolutionUnit: inch, centimetre


class TiffSlide(WholeSlide):
    """An open slide; see ``open_wsi``. Errors say so if OpenSlide was tried first."""

    def __init__(self, path: Path, refused_by_openslide: bool = False):
        self._errors = functools.partial(_tiff_errors, path, refused_by_openslide)
        with contextlib.ExitStack() as undo, self._errors():
            self._file = undo.enter_context(tifffile.TiffFile(path))
            self._file.filehandle.set_lock(True)
            self._pages = _pages(path, self._file)
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


def _pages(path: Path, file: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """The levels of the pyramid, finest first; FaultError unless they are 8-bit RGB."""
    if not file.series:
        raise FaultError.of("unreadable-slide", path, "no image", "a whole, undamaged TIFF")
    pages = [level.pages[0].aspage() for level in file.series[0].levels]
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
    mpp = _ome_mpp(file) or ((aperio_mpp,) * 2 if aperio_mpp else _tag_mpp(pages[0]))
    return SlideFacts(path, "tifffile", levels, *checked_resolution(mpp, aperio_magnification))


def _aperio(name: str, description: str) -> float | None:
    match = re.search(rf"\b{name}\s*=\s*([0-9.]+)", description)
    return number(match[1]) if match else None


def _ome_mpp(file: tifffile.TiffFile) -> tuple[float, float] | None:
    if not file.is_ome:
        return None
    text = file.ome_metadata or ""
    # The default unit is micrometres; slides in other units need --mpp-override.
    if re.search(r'PhysicalSize[XY]Unit="(?!(µm|um|&#181;m)")', text):
        return None
    sides = [number(size) for size in re.findall(r'PhysicalSize[XY]="([^"]+)"', text)[:2]]
    return (sides[0], sides[1]) if len(sides) == 2 and all(sides) else None


def _tag_mpp(page: tifffile.TiffPage) -> tuple[float | None, ...]:
    micrometres = _MICROMETRES.get(page.tags.valueof("ResolutionUnit"))
    sides = [page.tags.valueof(name) for name in ("XResolution", "YResolution")]
    if micrometres is None or None in sides or not all(pixels for pixels, _ in sides):
        return None, None
    return tuple(micrometres * units / pixels for pixels, units in sides)


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
