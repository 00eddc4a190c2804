"""Locks, so that two commands do not write one folder at the same time.

A lock belongs to a process and ends with it, however it ends. Some network file systems have no
locks; there, nothing counts as locked.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from gimp_fast.errors import GimpError, cause_of

_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_HELD_BY_OTHERS = (errno.EAGAIN, errno.EACCES)
_POLL_SECONDS = 0.1
_open_locks: set[int] = set()
_held: set[tuple[str, int]] = set()  # (lock file, thread that holds it)


@contextlib.contextmanager
def lock_file(path: Path) -> Iterator[bool]:
    """Hold a lock file, which is made if needed; False if another process or thread holds it.

    Raises:
        OSError: the file cannot be made, or is a link.
    """
    file, held = _open_and_lock(path)
    _open_locks.add(file)
    try:
        yield held
    finally:
        _open_locks.discard(file)
        os.close(file)


def _open_and_lock(path: Path) -> tuple[int, bool]:
    while True:
        file = os.open(path, _OPEN, 0o666)
        held = _try_lock(file)
        with contextlib.suppress(FileNotFoundError):
            if not held or os.path.samestat(os.fstat(file), os.lstat(path)):
                return file, held
        os.close(file)  # its last holder removed it before it was locked here


def is_locked(path: Path) -> bool:
    """True if a process holds this lock file."""
    try:
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _try_lock(file)
    finally:
        os.close(file)


@contextlib.contextmanager
def claim(folder: Path, name: str = ".lock", advice: str = "") -> Iterator[None]:
    """Hold a folder while a command writes to it; the same thread may hold it several times.

    Args:
        folder: made if needed.
        name: of the lock file, for commands that share a folder. It is removed at the end.
        advice: what to do if the folder is taken, besides waiting.

    Raises:
        GimpError: another command holds it, or it cannot be written.
    """
    folder = Path(folder)
    key = (str(folder.resolve() / name), threading.get_ident())
    if key in _held:
        yield
        return
    with contextlib.ExitStack() as undo:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held = undo.enter_context(lock_file(folder / name))
        except OSError as error:
            raise GimpError(f"{folder}: cannot be written ({cause_of(error)})") from error
        if not held:
            advice = advice or "choose another --out"
            raise GimpError(f"{folder}: another command is at work there; wait for it, or {advice}")
        _held.add(key)
        try:
            yield
        finally:
            _held.discard(key)
            with contextlib.suppress(OSError):
                (folder / name).unlink()


@contextlib.contextmanager
def claim_in_turn(folder: Path, name: str = ".lock", patience: float = 900.0) -> Iterator[None]:
    """Hold a folder as :func:`claim` does, but wait while another process holds it.

    Args:
        folder, name: as of :func:`claim`.
        patience: seconds to wait. The lock of a machine that died may stay on a file server for
            minutes.

    Raises:
        GimpError: another process still holds it, or it cannot be written.
    """
    deadline = time.monotonic() + patience
    while is_locked(Path(folder) / name) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    with claim(folder, name, f"remove {name} there if that has died"):
        yield


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _HELD_BY_OTHERS
    return True


def _close_in_child() -> None:
    """A forked process must not keep the locks of its parent, which it may outlive."""
    for file in _open_locks:
        with contextlib.suppress(OSError):
            os.close(file)
    _open_locks.clear()
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)
