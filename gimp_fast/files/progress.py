"""How far a long step has come: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")
LINE_SECONDS = 60.0  # between the lines of a log file


class Progress:
    """Shows the progress of a step on standard error. A context manager.

    A bar is drawn only on a terminal: in a file, each of its states would be a line. There the step
    is announced in one line, and one more says every minute how far it has come. Nothing is said
    about the time that is left before a part of the work is done.

    Args:
        text: what is being done, such as ``checking slides``.
        total: how much there is to do.
        unit: of ``total``, in the singular.
        done: how much an earlier call did.
        shown: False shows nothing.
        every: seconds between the lines of a log file.
    """

    def __init__(
        self,
        text: str,
        total: int,
        unit: str,
        *,
        done: int = 0,
        shown: bool = True,
        every: float = LINE_SECONDS,
    ):
        self.text, self.total, self.unit, self.done, self.every = text, total, unit, done, every
        self._first, self._bar = done, None
        self._began = self._said = time.monotonic()
        self._writes_lines = shown and not sys.stderr.isatty()
        if shown and not self._writes_lines:
            from tqdm import tqdm

            self._bar = tqdm(
                desc=text, total=total, initial=done, unit=unit, unit_scale=unit == "B",
                leave=False,
            )  # fmt: skip
        elif shown and total:
            self._say(f"{text}: {_amount(total, unit)}")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, count: int = 1, note: str = "") -> None:
        """Say that so much more is done; ``note`` is added to the bar or the line."""
        self.done += count
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
        elif self._writes_lines and time.monotonic() - self._said >= self.every:
            self._say(f"{self.text}: {self._state()}" + (f", {note}" if note else ""))

    def _state(self) -> str:
        share = f"{_number(self.done, self.unit)} of {_amount(self.total, self.unit)}"
        passed, made = time.monotonic() - self._began, self.done - self._first
        if not made or self.done >= self.total:
            return share
        return f"{share}, {_time(passed / made * (self.total - self.done))} left"

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        print(line, file=sys.stderr, flush=True)


def progress(
    items: Iterable[Item], text: str, total: int, unit: str, **options: Any
) -> Iterator[Item]:
    """The items, with the progress through them; arguments as of ``Progress``."""
    with Progress(text, total, unit, **options) as shown:
        for item in items:
            yield item
            shown.update()


def _number(value: int, unit: str) -> str:
    return f"{value / 1e9:.2f}" if unit == "B" else f"{value}"


def _amount(value: int, unit: str) -> str:
    if unit == "B":
        return f"{_number(value, unit)} GB"
    return f"{value} {unit}" + ("" if value == 1 else "s")


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
