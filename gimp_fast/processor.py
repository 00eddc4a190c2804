"""The processor of this machine: its name and its vendor. A leaf: every room may import it."""

from __future__ import annotations

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def name() -> str:
    """What the maker calls it, e.g. ``"AMD EPYC"``; where that is unknown, the architecture."""
    return _field("model name") or platform.processor() or platform.machine()


def vendor() -> str:
    """``"AuthenticAMD"``, ``"GenuineIntel"`` …, as x86 processors say; elsewhere empty."""
    # Windows: "AMD64 Family 25 Model 33 Stepping 0, AuthenticAMD".
    return _field("vendor_id") or platform.processor().partition(", ")[2]


def _field(key: str) -> str:
    """The first value of a key of ``/proc/cpuinfo``; empty without it."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for found, _, value in pairs if found.strip() == key), "")
