"""Requests to stop: SIGTERM (time limits, preemption) and SIGUSR1 (Slurm's warning)."""

from __future__ import annotations

import signal
import threading
from types import FrameType

SIGNALS = ("SIGTERM", "SIGUSR1")


class StopRequests:
    """Records stop signals while it is active; the training loop checks it after each step.

    A context manager. Signals reach only the main thread; in other threads nothing is recorded.

    Attributes:
        requested: name of the signal that arrived, or None.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequests:
        if threading.current_thread() is threading.main_thread():
            for name in SIGNALS:
                if hasattr(signal, name):
                    number = getattr(signal, name)
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = signal.Signals(number).name
