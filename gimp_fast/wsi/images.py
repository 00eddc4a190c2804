"""The images of a folder of slides: found by slide id, read at the size that is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from gimp_fast.errors import GimpError
from gimp_fast.wsi import SUFFIXES, WholeSlide, open_wsi
from gimp_fast.wsi.overview import read_overview
from gimp_fast.wsi.slide_files import in_hidden_place, slide_id_of

PLAIN_SUFFIXES = (".png", ".jpg", ".jpeg")


class SlideImages:
    """The images of a folder and its subfolders, by slide id; GimpError if it has none."""

    def __init__(self, folder: Path):
        if not folder.is_dir():
            raise GimpError(f"{folder}: found no such folder; expected one of slide images")
        suffixes = (*SUFFIXES, *PLAIN_SUFFIXES)
        files = sorted(
            f
            for f in folder.rglob("*")
            if f.suffix.lower() in suffixes and f.is_file() and not in_hidden_place(f, folder)
        )
        if not files:
            raise GimpError(f"{folder}: found no slide image; expected {', '.join(suffixes)}")
        self.folder = folder
        self._files: dict[str, Path] = {}
        for file in files:
            self._files.setdefault(slide_id_of(file), file)
            self._files.setdefault(file.stem, file)
            # GDC appends a UUID to the barcode of a slide, which feature files may have lost.
            self._files.setdefault(file.name.split(".")[0], file)

    def open(self, slide_id: str) -> _PlainImage | _Slide | None:
        """The slide's image; None if the folder has none; GimpError if it cannot be read."""
        file = self._files.get(slide_id) or self._files.get(slide_id.split(".")[0])
        if file is None:
            return None
        if file.suffix.lower() not in PLAIN_SUFFIXES:
            return _Slide(open_wsi(file))
        try:
            return _PlainImage(file)
        except (OSError, ValueError) as error:
            raise GimpError(f"{file}: cannot be read as a picture ({error})") from error


class _PlainImage:
    """A picture whose own pixels are level 0; threads may share it."""

    def __init__(self, file: Path):
        self._image = Image.open(file)
        self._image.load()  # not by two threads at once, later
        self.size, self.mpp, self.bounds = self._image.size, None, None

    def thumbnail(self, longest: int) -> np.ndarray:
        image = self._image.convert("RGB")
        image.thumbnail((longest, longest))
        return np.asarray(image)

    def region(self, x: float, y: float, side: float, pixels: int) -> np.ndarray:
        left, top, right, bottom = (round(v) for v in (x, y, x + side, y + side))
        width, height = self.size
        x0, y0 = min(max(left, 0), width), min(max(top, 0), height)
        x1, y1 = max(min(right, width), x0), max(min(bottom, height), y0)
        part = self._image.crop((x0, y0, x1, y1)).convert("RGBA")
        ground = Image.new("RGB", (right - left, bottom - top), "white")
        ground.paste(part, (x0 - left, y0 - top), part)
        return np.asarray(ground.resize((pixels, pixels)))

    def close(self) -> None:
        self._image.close()


class _Slide:
    """A whole-slide image."""

    def __init__(self, slide: WholeSlide):
        self._slide, facts = slide, slide.facts
        self.size, self.mpp = (facts.width, facts.height), facts.mpp
        self.bounds = facts.bounds or (0, 0, facts.width, facts.height)

    def thumbnail(self, longest: int) -> np.ndarray:
        return read_overview(self._slide, 1.0, max(1.0, max(self.size) / longest))[0]

    def region(self, x: float, y: float, side: float, pixels: int) -> np.ndarray:
        facts = self._slide.facts
        level = facts.level_for(max(1.0, side / pixels))
        read = max(1, round(side / facts.levels[level].downsample))
        part = self._slide.read(round(x), round(y), level, read, read)
        return np.asarray(Image.fromarray(part).resize((pixels, pixels)))

    def close(self) -> None:
        self._slide.close()
