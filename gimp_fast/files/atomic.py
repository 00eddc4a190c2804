"""Files and folders that appear complete or not at all, whatever interrupts their writing.

This is the only place of the package that opens files for writing. A temporary name can neither be
guessed nor be there already, so that nobody who may write to the folder can lead the writer to
another file by a link. A link at the final name is replaced, and not followed.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any

from gimp_fast.errors import GimpError, cause_of, is_full_disk
from gimp_fast.files.locks import is_locked, lock_file

PARTIAL = ".partial"
_LEFTOVER_SECONDS = 3600.0
_LOCK = ".lock"
# A name has at most 255 bytes; the temporary one adds up to 100.
_LONGEST_NAME = 150
_writing: ContextVar[bool] = ContextVar("writing", default=False)
_NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_FLAGS = {"w": _NEW, "a": os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC}


@contextlib.contextmanager
def write_errors(path: Path, note: str = "") -> Iterator[None]:
    """Turn the error of a write into a GimpError: ``path`` cannot be written.

    Of nested blocks the outer one speaks: it knows the name that the user gave.
    """
    is_inner = _writing.get()
    token = _writing.set(True)
    try:
        yield
    except (OSError, RuntimeError) as error:
        # HDF5 and torch report a full disk as a RuntimeError; others are not about the file.
        if is_inner or (isinstance(error, RuntimeError) and not is_full_disk(error)):
            raise
        raise GimpError(f"{path}: cannot be written ({cause_of(error)}){note}") from error
    finally:
        _writing.reset(token)


@contextlib.contextmanager
def atomic_file(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """The name of an empty temporary file to write to; it becomes ``path`` when the block succeeds.

    If the block fails, the temporary file is removed and what was at ``path`` is unchanged. Files
    that a killed process left are removed by the next writer of the same file, after an hour.

    Args:
        path: the file; its folder is made if needed. A link there is replaced, not followed.
        flush: whether the contents must be on the disk before the file has its name.

    Raises:
        GimpError: the file cannot be written, for example because the disk is full.
    """
    path = Path(path)
    partial = _partial_name(path)
    try:
        with write_errors(path, "; files that were there before are unchanged"):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(path)
            file = os.open(partial, _FLAGS["w"], 0o666)
            mode = stat.S_IMODE(os.fstat(file).st_mode)
            os.close(file)
            yield partial
            if stat.S_IMODE(os.lstat(partial).st_mode) != mode:
                partial.chmod(mode)  # a library may make its files private
            if flush:
                _flush_path(partial)
            os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def open_new(path: Path, mode: str = "w") -> Iterator[IO]:
    """A file that does not exist yet, open for writing; for files in a ``new_folder``.

    Args:
        path: the file; FileExistsError if the name is taken, also by a link.
        mode: ``"w"`` for UTF-8 text with the line ends that are written, ``"wb"`` for bytes.
    """
    with _open(path, mode) as stream:
        yield stream


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; GimpError if it cannot be written."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, values: Any, *, indent: int = 2) -> None:
    """Write JSON atomically; GimpError if it cannot be written."""
    write_text(path, json.dumps(values, indent=indent, ensure_ascii=False) + "\n")


def write_temporary(name: str, text: str) -> Path | None:
    """A new file for temporary text, in the system's folder for it; None if that cannot be."""
    with contextlib.suppress(OSError):
        file, path = tempfile.mkstemp(prefix=f"{name}-", suffix=".txt")
        with os.fdopen(file, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
        return Path(path)
    return None


def append_text(path: Path, text: str) -> None:
    """Append UTF-8 text and flush it to disk; GimpError if it cannot be written, or is a link."""
    with write_errors(path), open_to_append(path) as file:
        file.write(text.encode("utf-8"))
        flush_to_disk(file)


def append_line(path: Path, line: str) -> None:
    """Append a line and flush it to disk; GimpError if it cannot be written."""
    append_text(path, line + "\n")


@contextlib.contextmanager
def open_to_append(path: Path) -> Iterator[IO[bytes]]:
    """A file, made if needed, open to append bytes; OSError if it is a link."""
    with _open(path, "ab") as stream:
        yield stream


def _open(path: Path, mode: str) -> IO:
    file = os.open(path, _FLAGS[mode[0]], 0o666)
    text = {} if mode.endswith("b") else {"encoding": "utf-8", "newline": ""}
    return os.fdopen(file, mode, **text)


def flush_to_disk(stream: IO) -> None:
    """Return when everything written to an open file is on the disk."""
    stream.flush()
    os.fsync(stream.fileno())


def link_over(source: Path, target: Path) -> None:
    """Give a file a second name, replacing what had that name."""
    temporary = _partial_name(target)
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
        GimpError: the folder cannot be written, or another command is writing it; nothing is left
            behind.
    """
    with write_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(out)
        folder = _temporary_folder(out, "partial")
    try:
        with write_errors(out, "; nothing was left there"), lock_file(folder / _LOCK):
            yield folder
            # Flushed before the rename: after a power cut, a complete name has complete contents.
            for path in [*folder.rglob("*"), folder]:
                _flush_path(path)
            if replace and out.exists():
                _swap(folder, out)
            else:
                os.replace(folder, out)
            # Not before: without its lock file, a killed command's folder would stay for ever.
            (out / _LOCK).unlink(missing_ok=True)
            _flush_path(out.parent)
    finally:
        _remove_unfinished(folder)


def _swap(folder: Path, out: Path) -> None:
    """Put ``folder`` in the place of ``out``, which is removed."""
    aside = _temporary_folder(out, "replaced")
    os.replace(out, aside / out.name)
    try:
        os.replace(folder, out)
    except OSError:
        os.replace(aside / out.name, out)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _stem(path: Path) -> str:
    """The name of a file, or the start and a digest of a name that is too long to add to."""
    name = os.fsencode(path.name)
    if len(name) <= _LONGEST_NAME:
        return path.name
    start = name[: _LONGEST_NAME - 20].decode("utf-8", "ignore")
    return f"{start}-{hashlib.sha256(name).hexdigest()[:16]}"


def _partial_name(path: Path) -> Path:
    """A name beside a file that nobody can guess; it names the process for those who look."""
    host = re.sub(r"[^\w.-]", "_", socket.gethostname())[:40]
    token = f"{host}-{os.getpid()}-{secrets.token_hex(8)}"
    return path.with_name(f".{_stem(path)}.{token}{PARTIAL}")


def _temporary_folder(out: Path, kind: str) -> Path:
    """A new folder beside ``out``, with the permissions of any folder that the user makes."""
    folder = out.with_name(f".{_stem(out)}.{kind}-{secrets.token_hex(8)}")
    folder.mkdir()
    return folder


def _remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of this file; a live one writes more often than this."""
    for partial in path.parent.glob(f".{glob.escape(_stem(path))}.*{PARTIAL}"):
        with contextlib.suppress(FileNotFoundError):  # the other process finished meanwhile
            if time.time() - partial.lstat().st_mtime > _LEFTOVER_SECONDS:
                partial.unlink()


def _remove_abandoned(out: Path) -> None:
    """Remove what killed processes left of this folder; GimpError if one is still at work."""
    for folder in out.parent.glob(f".{glob.escape(_stem(out))}.partial-*"):
        lock = folder / _LOCK
        if folder.is_symlink() or not lock.is_file():
            continue
        if is_locked(lock):
            raise GimpError(f"{out}: another command is writing it; wait, or choose another --out")
        _remove_unfinished(folder)


def _remove_unfinished(folder: Path) -> None:
    """Remove a temporary folder; a kill meanwhile leaves the lock, by which the next finds it."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.name != _LOCK:
                os.unlink(entry.path)
    shutil.rmtree(folder, ignore_errors=True)


def _flush_path(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
