"""Work that one of pytest's workers does for all."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def session_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run of pytest share, and no other run."""
    folder = factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


def make_once(path: Path, make: Callable[[Path], None]) -> Path:
    """The file or folder, which ``make(other_path)`` makes unless another worker has.

    Under another name until it is complete: an interruption leaves nothing that looks made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            unfinished = path.with_name(f"{path.name}.{os.getpid()}")
            make(unfinished)
            unfinished.rename(path)
    return path
