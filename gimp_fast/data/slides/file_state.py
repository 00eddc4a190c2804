"""Size and time of a file: a cheap sign that nobody has changed it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import xxhash


def file_state(path: Path) -> str:
    """A text that changes when the file does; of a folder, when any file in it does.

    It is the size in bytes and the time of the last change in ns. A copied file has another state
    and the same content: only the content says whether something changed.

    Returns:
        Empty if the file cannot be found.
    """
    try:
        found = os.stat(path)
        if not stat.S_ISDIR(found.st_mode):
            return f"{found.st_size}-{found.st_mtime_ns}"
        digest, total, latest = xxhash.xxh3_64(), 0, 0
        for inside in sorted(path.rglob("*")):
            found = os.lstat(inside)
            if not stat.S_ISDIR(found.st_mode):
                name = os.fsencode(inside.relative_to(path))
                digest.update(b"%s/%d-%d/" % (name, found.st_size, found.st_mtime_ns))
                total, latest = total + found.st_size, max(latest, found.st_mtime_ns)
    except (OSError, ValueError):  # no such file; or a name that no file can have
        return ""
    return f"{total}-{latest}-{digest.hexdigest()}"
