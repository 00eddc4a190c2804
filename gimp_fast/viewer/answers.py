"""What the page asks its server for; an address names everything by a number, never by a path."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from gimp_fast.viewer.catalogue import catalogue, slide_ids
from gimp_fast.viewer.folders import Case, MapFolder, Slide
from gimp_fast.viewer.genes import read_genes
from gimp_fast.viewer.page import STATIC, served_page
from gimp_fast.viewer.patches import Patches, read_patches
from gimp_fast.viewer.tiles import SlidePictures

if TYPE_CHECKING:  # which would load torch
    from gimp_fast.heatmaps.protocols import ImageFolder

CROP = 160  # pixels of the picture of a patch
_BINARY, _JSON, _JPEG = "application/octet-stream", "application/json", "image/jpeg"


@dataclass(frozen=True)
class Answer:
    """The content of an answer; ``keep`` if it never changes while the server runs."""

    content: bytes
    kind: str
    keep: bool = False


class Answers:
    """Answers to addresses; threads may share it.

    Args:
        folders: of maps, which are shown side by side.
        images: of slides; None shows the patches alone.
    """

    def __init__(self, folders: Sequence[MapFolder], images: ImageFolder | None):
        self._folders = folders
        self._catalogue = catalogue(folders, has_images=images is not None)
        case_ids = [entry["case_id"] for entry in self._catalogue["cases"]]
        by_id = [{case.case_id: case for case in folder.patients} for folder in folders]
        self._cases = [[cases.get(case_id) for case_id in case_ids] for cases in by_id]
        self._html = served_page().encode("utf-8")
        self._pictures = SlidePictures(images, slide_ids(folders))
        self._patches = lru_cache(8)(self._read_patches)
        number = r"(\d{1,9})"
        routes: dict[str, Callable[..., Answer | None]] = {
            "": self._page,
            r"static/([\w./-]+)": self._static,
            "catalogue": lambda: _json(self._catalogue),
            f"patches/{number}/{number}/{number}": self._patch_data,
            f"genes/{number}/{number}": self._genes,
            f"crop/{number}/{number}/{number}/{number}": self._crop,
            f"slide/{number}": lambda slide: _json(self._pictures.info(slide)),
            f"tile/{number}/{number}/{number}/{number}": self._tile,
        }
        self._routes = {re.compile(route, re.ASCII): answer for route, answer in routes.items()}

    def to(self, address: str) -> Answer | None:
        """The answer to an address, without the token; None if there is nothing.

        Raises:
            GimpError: a file of the maps, or a slide, cannot be read.
        """
        for route, answer in self._routes.items():
            if match := route.fullmatch(address):
                return answer(*(int(p) if p.isdecimal() else p for p in match.groups()))
        return None

    def _page(self) -> Answer:
        return Answer(self._html, "text/html; charset=utf-8")

    def _static(self, name: str) -> Answer | None:
        if name not in STATIC:
            return None
        kind = "text/css" if name.endswith(".css") else "text/javascript"
        content = files("gimp_fast.viewer").joinpath("static", name).read_bytes()
        return Answer(content, f"{kind}; charset=utf-8", keep=True)

    def _case(self, folder: int, case: int) -> Case | None:
        if folder >= len(self._cases) or case >= len(self._cases[folder]):
            return None
        return self._cases[folder][case]

    def _slide(self, folder: int, case: int, slide: int) -> Slide | None:
        found = self._case(folder, case)
        return found.slides[slide] if found and slide < len(found.slides) else None

    def _read_patches(self, folder: int, case: int, slide: int) -> Patches | None:
        record = self._slide(folder, case, slide)
        file = record and self._folders[folder].file(record, "patches")
        return read_patches(file) if file else None

    def _patch_data(self, folder: int, case: int, slide: int) -> Answer | None:
        patches = self._patches(folder, case, slide)
        return None if patches is None else Answer(patches.to_bytes(), _BINARY, keep=True)

    def _genes(self, folder: int, case: int) -> Answer | None:
        record = self._case(folder, case)
        genes = record and record.genes and self._folders[folder].file(record.genes, "genes")
        return _json(read_genes(genes)) if genes else None

    def _crop(self, folder: int, case: int, slide: int, place: int) -> Answer | None:
        patches, record = self._patches(folder, case, slide), self._slide(folder, case, slide)
        if patches is None or place >= len(patches) or record.unit != "px":
            return None
        x, y = (float(patches.columns[name][place]) for name in ("x", "y"))
        if x != x or record.patch_size <= 0:
            return None
        number = self._catalogue["slides"].index(record.slide_id)
        picture = self._pictures.patch(number, x, y, record.patch_size, CROP)
        return None if picture is None else Answer(picture, _JPEG, keep=True)

    def _tile(self, slide: int, level: int, column: int, row: int) -> Answer | None:
        picture = self._pictures.tile(slide, level, column, row)
        return None if picture is None else Answer(picture, _JPEG, keep=True)


def _json(value: Any) -> Answer:
    return Answer(json.dumps(value, allow_nan=False).encode("utf-8"), _JSON)
