"""Runs side by side, each in a process of its own: one that crashes leaves the others alone."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from gimp_fast.errors import GimpError, StoppedError
from gimp_fast.experiments.plan import Run, is_done
from gimp_fast.experiments.worker import ERROR, LOG, Task, work
from gimp_fast.training.stops import StopRequests

GRACE_SECONDS = 60  # for a run that was asked to stop, to finish its step and save its state
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        error: None if it succeeded.
        seconds: from its start to its end.
    """

    run: Run
    folder: Path
    error: str | None
    seconds: float


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a folder of runs: two commands at work in it would train the same runs.

    Raises:
        GimpError: another command holds it, or it cannot be written.
    """
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / ".lock").open("w")
    except OSError as error:
        raise GimpError(f"{folder}: cannot be written ({error})") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise GimpError(
                f"{folder}: another command is at work there; wait for it, or choose another --out"
            ) from error
        yield


def run_all(
    tasks: Sequence[Task], jobs: int, tell: Callable[[Outcome], None], gpus: int = 0
) -> None:
    """Carry out all tasks, ``jobs`` at a time.

    Args:
        tell: is called as each ends.
        gpus: how many there are, to be shared out; 0 and 1 share out nothing.

    Raises:
        StoppedError: SIGTERM or SIGUSR1 came; runs have saved their state.
        KeyboardInterrupt: likewise.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gimp_fast.experiments.worker"])
    waiting, slots = list(reversed(tasks)), list(reversed(range(jobs)))
    active: dict[Any, _Active] = {}
    with StopRequests() as stops:
        try:
            while waiting or active:
                while waiting and slots and not stops.requested:
                    started = _start(context, waiting.pop(), slots.pop(), gpus)
                    active[started.process.sentinel] = started
                for sentinel in wait(list(active), timeout=POLL_SECONDS):
                    ended = active.pop(sentinel)
                    slots.append(ended.slot)
                    tell(ended.outcome())
                if stops.requested:
                    raise StoppedError(
                        f"stopped by {stops.requested}; runs have saved their state: the same "
                        "command goes on"
                    )
        finally:
            _stop(list(active.values()))


@dataclass
class _Active:
    task: Task
    process: Any
    slot: int
    began: float

    def outcome(self) -> Outcome:
        self.process.join()
        seconds = time.perf_counter() - self.began
        return Outcome(self.task.run, self.task.folder, self._error(), seconds)

    def _error(self) -> str | None:
        code, folder = self.process.exitcode, self.task.folder
        if code == 0 and is_done(folder):
            return None
        if (folder / ERROR).is_file():
            return (folder / ERROR).read_text(encoding="utf-8").strip()
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            memory = "; perhaps memory ran out: fewer --jobs need less" if name == "SIGKILL" else ""
            return f"ended by {name}{memory}"
        if not (folder / LOG).is_file():
            return f"ended with exit code {code} before it began"
        lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), f"exit code {code}")
        return f"{last.strip()}; see {folder / LOG}"


def _start(context: Any, task: Task, slot: int, gpus: int) -> _Active:
    if gpus > 1:
        task = Task(task.run, task.data, task.folder, task.keep_checkpoints, slot % gpus)
    process = context.Process(target=work, args=(task,), name=task.run.name)
    process.start()
    return _Active(task, process, slot, time.perf_counter())


def _stop(active: Sequence[_Active]) -> None:
    """Ask all to stop, wait until they have saved their state, end those that do not."""
    for one in active:
        one.process.terminate()
    deadline = time.perf_counter() + GRACE_SECONDS
    for one in active:
        one.process.join(max(0.0, deadline - time.perf_counter()))
        if one.process.is_alive():
            one.process.kill()
            one.process.join()
