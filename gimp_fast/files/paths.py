"""Which names of a folder are read, and which names in a file stay inside its folder.

These rules have no other place: every search of a folder, and every file that names other files,
uses them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gimp_fast.errors import FaultError

OUTSIDE = "outside-file"  # kind of the fault of a file that refers to another one


def is_hidden(path: Path) -> bool:
    """True if the name begins with a dot.

    macOS writes a file ``._a.h5`` beside ``a.h5`` on disks of other systems and into archives, and
    a file that is being written has a name like this too. Neither is what its ending says.
    """
    return path.name.startswith(".")


def visible(paths: Iterable[Path]) -> list[Path]:
    """The paths that are not hidden, sorted."""
    return sorted(path for path in paths if not is_hidden(path))


def path_inside(folder: Path, name: str, where: object) -> Path:
    """The path of a file that another file names, which must be below a folder.

    Args:
        folder: where the file must be. Links in it are the user's own, and are followed.
        name: as it was read; a relative path.
        where: the file and the row that name it, for the fault.

    Raises:
        FaultError: the name is empty, absolute, or leaves the folder.
    """
    parts = name.replace("\\", "/").split("/")
    if not name or "\0" in name or parts[0] == "" or ".." in parts or Path(name).is_absolute():
        expected = f"the name of a file below {folder}"
        raise FaultError.of(OUTSIDE, where, f"{name!r:.100}", expected)
    return folder / name
