"""Where the time of a step goes."""

from __future__ import annotations

import time

import torch


class StepTimes:
    """Seconds of an epoch by phase, e.g. data, forward, backward, optimizer.

    On a GPU, which works behind the program's back, phases are bounded by events in its queue and
    added up at the end of the epoch: nothing waits for it. ``data`` is the program's own waiting.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: torch.device):
        self._cuda = device.type == "cuda"
        self._marks: list[tuple[str, float, torch.cuda.Event | None]] = []
        self._seconds: dict[str, float] = {}

    def begin(self) -> None:
        """The start of whatever the next ``mark`` ends."""
        self._marks.append(("", time.perf_counter(), self._event()))

    def mark(self, phase: str) -> None:
        """The end of a phase, and the beginning of the next."""
        self._marks.append((phase, time.perf_counter(), self._event()))
        if not self._cuda:
            self._add_up()

    def seconds(self) -> dict[str, float]:
        """Seconds by phase so far."""
        if self._cuda:
            torch.cuda.synchronize()
        self._add_up()
        return {phase: round(seconds, 4) for phase, seconds in self._seconds.items()}

    def _event(self) -> torch.cuda.Event | None:
        if not self._cuda:
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _add_up(self) -> None:
        for (_, start, begun), (phase, end, done) in zip(
            self._marks[:-1], self._marks[1:], strict=True
        ):
            if phase:
                taken = end - start
                if begun is not None and phase != "data":
                    taken = begun.elapsed_time(done) / 1e3
                self._seconds[phase] = self._seconds.get(phase, 0.0) + taken
        del self._marks[:-1]
