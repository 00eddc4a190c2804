"""Opens a slide with the library that reads its format."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from gimp_fast.errors import FaultError, GimpError
from gimp_fast.wsi.slide import WholeSlide

_TIFF_SIGNS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def installed_readers() -> list[str]:
    """``openslide``, ``tifffile``, or both; GimpError if neither is installed."""
    installed = [name for name in ("openslide", "tifffile") if importlib.util.find_spec(name)]
    if not installed:
        raise GimpError("reading slides needs OpenSlide: pip install 'gimp-fast[wsi]'")
    return installed


def open_wsi(path: str | Path) -> WholeSlide:
    """The open slide, read by OpenSlide; a TIFF that it does not recognise, by tifffile.

    Raises:
        FaultError: there is no such file, or it is not a slide.
        GimpError: neither reader is installed.
    """
    path = Path(path)
    if not path.is_file():
        raise FaultError.of("missing-file", path, "no such file", "a whole-slide image")
    installed = installed_readers()
    if "openslide" in installed:
        from gimp_fast.wsi.openslide_file import OpenSlideFile, recognises

        if recognises(path):
            slide = OpenSlideFile(path)
            return _all_levels(slide) if slide.is_ome and "tifffile" in installed else slide
    with path.open("rb") as file:
        is_tiff = file.read(4) in _TIFF_SIGNS
    if "tifffile" in installed and is_tiff:
        from gimp_fast.wsi.tiff_file import TiffSlide

        return TiffSlide(path, refused_by_openslide="openslide" in installed)
    found = f"{path.stat().st_size} bytes that {' and '.join(installed)} cannot read"
    raise FaultError.of("unknown-format", path, found, "a whole, undamaged slide")


def _all_levels(slide: WholeSlide) -> WholeSlide:
    """An OME-TIFF with its levels, of which OpenSlide sees the first only.

    The slide itself if tifffile finds no more, or cannot decode them.
    """
    from gimp_fast.wsi.tiff_file import TiffSlide

    try:
        other = TiffSlide(slide.facts.path)
    except FaultError:  # pixels that only OpenSlide converts
        return slide
    better = other.can_decode and len(other.facts.levels) > len(slide.facts.levels)
    (slide if better else other).close()
    return other if better else slide
