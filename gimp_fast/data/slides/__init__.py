"""Slide feature files: CLAM, TRIDENT and STAMP ``.h5``, the same in Zarr, and tensor ``.pt``.

``open_slide(path)`` gives all of them one interface. Whatever is wrong with a file is a FaultError
that names it. A ``.pt`` is only read with ``weights_only=True``: it never runs code.
"""

from __future__ import annotations

from pathlib import Path

from gimp_fast.data.slides.base import SlideFile, SlideInfo
from gimp_fast.errors import FaultError
from gimp_fast.files.paths import is_hidden

__all__ = ["SUFFIXES", "SlideFile", "SlideInfo", "is_slide", "open_slide", "slide_id_of"]

SUFFIXES = (".h5", ".pt", ".zarr", ".zarr.zip")


def is_slide(path: Path) -> bool:
    """True if the name is one of a feature file, and not hidden; a Zarr group may be a folder."""
    return path.name.endswith(SUFFIXES) and not is_hidden(path)


def slide_id_of(path: Path) -> str:
    """The file's name without its ending."""
    ending = max((end for end in SUFFIXES if path.name.endswith(end)), key=len, default="")
    return path.name.removesuffix(ending)


def open_slide(path: str | Path) -> SlideFile:
    """Open a feature file of any supported format.

    Args:
        path: a ``.h5``, ``.pt``, ``.zarr`` or ``.zarr.zip``.

    Returns:
        The open file; only its header has been read.

    Raises:
        FaultError: the file is missing, unreadable, unsafe, or not a table of float features.
    """
    path = Path(path)
    zarr = path.name.endswith((".zarr", ".zarr.zip"))
    if not path.is_file() and not (zarr and path.is_dir()):
        raise FaultError.of("missing-file", path, "no such file", f"a file ({', '.join(SUFFIXES)})")
    if path.suffix == ".h5":
        from gimp_fast.data.slides.h5 import H5Slide as Slide
    elif path.suffix == ".pt":
        from gimp_fast.data.slides.pt import PtSlide as Slide
    elif zarr:
        from gimp_fast.data.slides.zarr_file import ZarrSlide as Slide
    else:
        found = f"suffix '{path.suffix}'"
        raise FaultError.of("unknown-format", path, found, " or ".join(SUFFIXES))
    return Slide(path)
