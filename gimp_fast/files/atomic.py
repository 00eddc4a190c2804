"""Files and folders that appear complete or not at all, whatever interrupts their writing."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from gimp_fast.errors import GimpError, one_line

PARTIAL = ".partial"
_LEFTOVER_SECONDS = 3600.0
_LOCK = ".lock"


@contextlib.contextmanager
def write_errors(path: Path, note: str = "") -> Iterator[None]:
    """Turn an OSError into a GimpError: ``path`` cannot be written."""
    try:
        yield
    except OSError as error:
        raise GimpError(f"{path}: cannot be written ({one_line(error)}){note}") from error


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary name to write to; it becomes ``path`` when the block succeeds.

    If the block fails, the temporary file is removed and what was at ``path`` is unchanged. Files
    that a killed process left are removed by the next writer of the same file, after an hour.

    Raises:
        GimpError: the file cannot be written, for example because the disk is full.
    """
    # The name is unique to this process: two that write the same file do not mix their bytes.
    partial = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}{PARTIAL}")
    try:
        with write_errors(path, "; files that were there before are unchanged"):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(path)
            yield partial
            _flush_path(partial)
            os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; GimpError if it cannot be written."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Any, *, indent: int = 2) -> None:
    """Write JSON atomically; GimpError if it cannot be written."""
    write_text(path, json.dumps(values, indent=indent, ensure_ascii=False) + "\n")


def append_line(path: Path, line: str) -> None:
    """Append a line and flush it to disk; GimpError if it cannot be written."""
    with write_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        flush_to_disk(file)


def flush_to_disk(stream: IO) -> None:
    """Return when everything written to an open file is on the disk."""
    stream.flush()
    os.fsync(stream.fileno())


def link_over(source: Path, target: Path) -> None:
    """Give a file a second name, replacing what had that name."""
    temporary = target.with_name(f".{target.name}.link")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # a file system without hard links: the file is renamed instead
        os.replace(source, target)
        return
    os.replace(temporary, target)


@contextlib.contextmanager
def new_folder(out: Path, *, replace: bool = False) -> Iterator[Path]:
    """A temporary sibling of ``out`` that takes its place when the block succeeds.

    Args:
        out: a folder that is absent or empty.
        replace: ``out`` may hold files, which are removed once the new folder is in place.

    Raises:
        GimpError: the folder cannot be written; nothing is left behind.
    """
    with write_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(out)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
    try:
        with (
            write_errors(out, "; nothing was left there"),
            (folder / _LOCK).open("w") as lock,
        ):
            _try_lock(lock.fileno())
            yield folder
            # Flushed before the rename: after a power cut, a complete name has complete contents.
            for path in [*folder.rglob("*"), folder]:
                _flush_path(path)
            (folder / _LOCK).unlink()
            folder.chmod(0o755)  # mkdtemp makes it private
            if replace and out.exists():
                _swap(folder, out)
            else:
                os.replace(folder, out)
            _flush_path(out.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _swap(folder: Path, out: Path) -> None:
    """Put ``folder`` in the place of ``out``, which is removed."""
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.replaced-", dir=out.parent))
    os.replace(out, aside / out.name)
    try:
        os.replace(folder, out)
    except OSError:
        os.replace(aside / out.name, out)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of this file; a live one writes more often than this."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*{PARTIAL}"):
        with contextlib.suppress(FileNotFoundError):  # the other process finished meanwhile
            if time.time() - partial.stat().st_mtime > _LEFTOVER_SECONDS:
                partial.unlink()


def _remove_abandoned(out: Path) -> None:
    """Remove what killed processes left of this folder. One that is still at work holds a lock."""
    for folder in out.parent.glob(f".{glob.escape(out.name)}.partial-*"):
        with contextlib.suppress(OSError), (folder / _LOCK).open("r+") as lock:
            if _try_lock(lock.fileno()):
                shutil.rmtree(folder, ignore_errors=True)


def _try_lock(file: int) -> bool:
    """Some network file systems have no locks; there, nothing counts as abandoned."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _flush_path(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
