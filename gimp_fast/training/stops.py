"""Requests to stop: SIGTERM (time limits, preemption), SIGUSR1 (Slurm's warning), and Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = ("SIGTERM", "SIGUSR1")
INTERRUPT = "SIGINT"


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

    @contextlib.contextmanager
    def on_interrupt(self) -> Iterator[None]:
        """Within the block, Ctrl-C is a request too; a second one interrupts at once."""
        in_main = threading.current_thread() is threading.main_thread()
        if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return
        signal.signal(signal.SIGINT, self._note_interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = signal.Signals(number).name

    def _note_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.requested == INTERRUPT:
            raise KeyboardInterrupt
        self.requested = INTERRUPT
        print("stopping after this step; Ctrl-C again stops at once", file=sys.stderr, flush=True)
