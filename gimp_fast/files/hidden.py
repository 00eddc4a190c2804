"""Names that are not meant to be read: the one rule for every folder that is searched."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def is_hidden(path: Path) -> bool:
    """True if the name begins with a dot.

    macOS writes a file ``._a.h5`` beside ``a.h5`` on disks of other systems and into archives, and
    a file that is being written has a name like this too. Neither is what its ending says.
    """
    return path.name.startswith(".")


def visible(paths: Iterable[Path]) -> list[Path]:
    """The paths that are not hidden, sorted."""
    return sorted(path for path in paths if not is_hidden(path))
