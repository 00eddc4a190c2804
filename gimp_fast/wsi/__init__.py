"""Whole-slide images: reading, tissue, patches, and their features (extra ``wsi``).

``open_wsi(path)`` gives one interface for all formats. Importing this package imports neither
openslide nor tifffile.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from gimp_fast.errors import FaultError, GimpError
from gimp_fast.wsi.slide import WholeSlide

__all__ = ["SUFFIXES", "WholeSlide", "open_wsi"]

# Of files that are a slide each; a slide in DICOM is many, of which the user names one.
SUFFIXES = (
    ".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide",
)  # fmt: skip
_TIFF_SIGNS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def open_wsi(path: str | Path) -> WholeSlide:
    """Open a slide with OpenSlide, or with tifffile what is a TIFF that OpenSlide does not know.

    Args:
        path: a slide of any format that one of them reads.

    Returns:
        The open slide; a context manager.

    Raises:
        FaultError: there is no such file, or it is not a slide.
        GimpError: neither reader is installed.
    """
    path = Path(path)
    if not path.is_file():
        raise FaultError.of("missing-file", path, "no such file", "a whole-slide image")
    installed = [name for name in ("openslide", "tifffile") if importlib.util.find_spec(name)]
    if not installed:
        raise GimpError("reading slides needs OpenSlide: pip install 'gimp-fast[wsi]'")
    if "openslide" in installed:
        from gimp_fast.wsi.openslide_file import OpenSlideFile, recognises

        if recognises(path):
            return OpenSlideFile(path)
    if "tifffile" in installed and _is_tiff(path):
        from gimp_fast.wsi.tiff_file import TiffSlide

        return TiffSlide(path, refused_by_openslide="openslide" in installed)
    raise FaultError.of(
        "unknown-format",
        path,
        f"{path.stat().st_size} bytes that {' and '.join(installed)} cannot read",
        "a whole, undamaged slide",
    )


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in _TIFF_SIGNS
