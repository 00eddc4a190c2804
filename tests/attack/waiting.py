"""Waits for a process, with a limit."""

from __future__ import annotations

import os
import select


def ends_within(child: int, seconds: float) -> bool:
    """True if the child ended in time."""
    handle = os.pidfd_open(child)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(handle)
