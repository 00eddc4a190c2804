"""Slide feature files: CLAM, TRIDENT and STAMP ``.h5``, the same in Zarr, and tensor ``.pt``.

``open_slide(path)`` gives all of them one interface. Whatever is wrong with a file is a FaultError
that names it. A ``.pt`` is only read with ``weights_only=True``: it never runs code.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gimp_fast.data.slides.base import SlideFile, SlideInfo
from gimp_fast.errors import FaultError
from gimp_fast.files.paths import is_hidden
from gimp_fast.plugins import Registry

__all__ = [
    "SlideFile", "SlideInfo", "endings", "is_slide", "open_slide", "register_reader", "slide_id_of",
]  # fmt: skip


def _h5(path: Path) -> SlideFile:
    from gimp_fast.data.slides.h5 import H5Slide

    return H5Slide(path)


def _pt(path: Path) -> SlideFile:
    from gimp_fast.data.slides.pt import PtSlide

    return PtSlide(path)


def _zarr(path: Path) -> SlideFile:
    from gimp_fast.data.slides.zarr_file import ZarrSlide

    return ZarrSlide(path)


Reader = Callable[[Path], SlideFile]
# Ending of a name -> what opens such a file.
_READERS: Registry[Reader] = Registry(
    "reader", {".h5": _h5, ".pt": _pt, ".zarr": _zarr, ".zarr.zip": _zarr}
)
_MAY_BE_FOLDERS = (".zarr", ".zarr.zip")


def register_reader(ending: str, reader: Reader) -> None:
    """Add a format of feature files, for every command that reads them.

    A file of your own registers it in every process if the commands get it as ``--plugin file.py``,
    see docs/extending.md::

        class Npy(data.SlideFile):
            def __init__(self, path):
                self.rows = np.load(path, mmap_mode="r")  # (N, C)
                count, channels = self.rows.shape
                info = data.SlideInfo(path, "npy", "", count, channels, str(self.rows.dtype))
                super().__init__(info)

            def _read(self, start, stop):
                return np.array(self.rows[start:stop], np.float32)

            def coords(self):
                return None

        data.register_reader(".npy", Npy)

    Args:
        ending: of the names of such files, with its dot, in lower case.
        reader: opens a file: path -> :class:`SlideFile`. It is called in several processes. What it
            raises about a file should be a ``FaultError``; ``ValueError`` and ``OSError`` are
            reported, too.

    Raises:
        ValueError: no ending, or one that is taken.
        TypeError: the reader cannot be called.
    """
    if not isinstance(ending, str) or len(ending) < 2 or ending[0] != "." or not ending.islower():
        raise ValueError(f"reader {ending!r}: expected an ending in lower case such as '.npy'")
    if not callable(reader):
        raise TypeError(f"reader {ending!r}: found {reader!r}; expected a function of a path")
    _READERS.add(ending, reader)


def endings() -> tuple[str, ...]:
    """The endings of the names of feature files, those of plugins included."""
    return tuple(_READERS)


def is_slide(path: Path) -> bool:
    """True if the name is one of a feature file, and not hidden; a Zarr group may be a folder."""
    return path.name.endswith(endings()) and not is_hidden(path)


def slide_id_of(path: Path) -> str:
    """The file's name without its ending."""
    return path.name.removesuffix(_ending_of(path))


def open_slide(path: str | Path) -> SlideFile:
    """Open a feature file of any supported format.

    Args:
        path: a ``.h5``, ``.pt``, ``.zarr`` or ``.zarr.zip``, or what a plugin reads.

    Returns:
        The open file; only its header has been read.

    Raises:
        FaultError: the file is missing, unreadable, unsafe, or not a table of float features.
    """
    path = Path(path)
    ending = _ending_of(path)
    if not path.is_file() and not (ending in _MAY_BE_FOLDERS and path.is_dir()):
        expected = f"a file ({', '.join(endings())})"
        raise FaultError.of("missing-file", path, "no such file", expected)
    if not ending:
        found = f"suffix '{path.suffix}'"
        raise FaultError.of("unknown-format", path, found, " or ".join(endings()))
    return _READERS.get(ending)(path)


def _ending_of(path: Path) -> str:
    """The longest ending of a feature file that the name has; empty if it has none."""
    return max((end for end in endings() if path.name.endswith(end)), key=len, default="")
