"""One page a slide that opens anywhere, from a mail too: nothing is loaded from outside."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gimp_fast.errors import SHOWN, GimpError, counted
from gimp_fast.files.atomic import write_text
from gimp_fast.runs import layout
from gimp_fast.viewer.answers import CROP
from gimp_fast.viewer.catalogue import LISTED, catalogue
from gimp_fast.viewer.folders import Case, MapFolder, Slide, open_maps
from gimp_fast.viewer.genes import read_genes
from gimp_fast.viewer.page import offline_page
from gimp_fast.viewer.patches import Patches, read_patches
from gimp_fast.viewer.tiles import jpeg

if TYPE_CHECKING:  # which would load torch
    from gimp_fast.heatmaps.protocols import ImageFolder, SlideImage

LARGEST = 15 << 20  # bytes of a page: what mail servers let pass
# Pixels of the longer side of the overview, until the page is small enough.
_SIDES = (4096, 3072, 2048, 1024)


def write_pages(
    folder: str | Path,
    images: ImageFolder | None = None,
    *,
    log: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Write ``SLIDE/view.html`` of each slide in a folder of maps, at most 15 MB each.

    A page that is there is kept: the folder of a slide is emptied when its map is made again.

    Args:
        folder: that `gimp-fast heatmap` wrote, or a run with such maps.
        images: of slides, for the picture below the map and those of the highest patches.
        log: receives a line at the end.

    Returns:
        The pages that were written now.

    Raises:
        GimpError: the folder holds no maps, or, once all other pages are written, files of some
            slides cannot be read.
    """
    maps, written, failures = open_maps(folder), [], []
    for case in maps.patients:
        for slide in case.slides:
            page = maps.path / slide.folder / layout.VIEW_PAGE
            if page.exists() or not slide.num_patches:
                continue
            try:
                image = images.open(slide.slide_id) if images else None
                with closing(image) if image else nullcontext():
                    write_text(page, page_of(maps, case, slide, image))
            except GimpError as error:
                failures.append(f"  {slide.slide_id}  {error}")
            else:
                written.append(page)
    if written:
        where = f"{layout.VIEW_PAGE} beside each map"
        log(f"pages: {counted(len(written), 'page')} that can be mailed, {where}")
    if failures:
        listed = "\n".join(failures[:SHOWN])
        more = f"\n  … and {len(failures) - SHOWN} more" if len(failures) > SHOWN else ""
        raise GimpError(f"{counted(len(failures), 'slide')} without a page:\n{listed}{more}")
    return written


def page_of(maps: MapFolder, case: Case, slide: Slide, image: SlideImage | None) -> str:
    """The page of one slide."""
    alone = case.model_copy(update={"slides": [slide]})
    only = maps.model_copy(update={"patients": [alone]})
    patches, genes = maps.file(slide, "patches"), case.genes and maps.file(case.genes, "genes")
    table = read_patches(patches)
    content = {
        "catalogue": catalogue([only], offline=True, has_images=image is not None),
        "patches": base64.b64encode(gzip.compress(table.to_bytes(), 6)).decode("ascii"),
        "genes": read_genes(genes) if genes else None,
        "slide": {"missing": "This page was made without the image of the slide."},
        "crops": {},
    }
    title = f"{slide.slide_id} · heatmap"
    if image is None or slide.unit != "px":
        return offline_page(title, content)
    content["crops"] = _crops(image, table, slide)
    for side in _SIDES:
        page = offline_page(title, content | {"slide": _overview(image, side)})
        if len(page.encode("utf-8")) <= LARGEST:
            break
    return page


def _overview(image: SlideImage, side: int) -> dict[str, Any]:
    (width, height), pixels = image.size, image.thumbnail(side)
    return {"width": width, "height": height, "mpp": image.mpp, "url": _url(jpeg(pixels))}


def _crops(image: SlideImage, patches: Patches, slide: Slide) -> dict[str, str]:
    """Pictures of the highest patches, by their place in the table."""
    places = np.stack([patches.columns["x"], patches.columns["y"]], 1).astype(float)
    highest = [place for place in patches.highest(LISTED) if np.isfinite(places[place]).all()]
    return {
        str(place): _url(jpeg(image.region(*places[place], slide.patch_size, CROP)))
        for place in highest
    }


def _url(picture: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode('ascii')}"
