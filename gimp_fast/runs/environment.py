"""The environment of a run: versions, hardware and the revision of the sources."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from gimp_fast import __version__, processor

_RECORDED_PACKAGES = ("torch", "triton", "numpy", "h5py", "scikit-learn", "safetensors")


def git_revision() -> str | None:
    """Git revision of the sources, if the package runs from a checkout; else None."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", folder, "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Package -> installed version; None if it is not installed."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def environment() -> dict[str, Any]:
    """Versions and hardware of this process."""
    import torch

    from gimp_fast import native
    from gimp_fast.ops.product_library import choice

    return {
        "gimp_fast": __version__,
        "git_revision": git_revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions(_RECORDED_PACKAGES),
        "processor": processor.name(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "products": choice().library,
        "instructions": next(iter(native.load().instructions), None),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cuda": torch.version.cuda,
    }
