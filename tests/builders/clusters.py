"""A cluster of dask on this machine: a scheduler and workers, each a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gimp_fast
from gimp_fast.files.json_file import read_json_object

PACKAGE = Path(gimp_fast.__file__).resolve().parents[1]  # the one that is tested
SECONDS = 600  # of a machine with other work; a quiet one needs five


class Cluster:
    """A scheduler, in a file, and its workers.

    Args:
        folder: of the file and the logs.
    """

    def __init__(self, folder: Path):
        self.folder, self.file = folder, folder / "scheduler.json"
        self._processes: list[subprocess.Popen] = []
        self.scheduler = self._start(
            "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", self.file
        )
        wait_until(self.file.is_file, "the scheduler never wrote its file")
        self.address = read_json_object(self.file)["address"]

    def add_worker(self, *options: str, package: str = str(PACKAGE)) -> subprocess.Popen:
        """A worker with a thread, and the folders that it imports from."""
        options = ("--nthreads", "1", "--no-dashboard", "--memory-limit", "0", *options)
        return self._start("worker", self.address, *options, package=package)

    def _start(self, kind: str, *options: object, package: str = str(PACKAGE)) -> subprocess.Popen:
        environment = {**os.environ, "PYTHONPATH": package, "PYTHONSAFEPATH": "1"}
        environment["DASK_TEMPORARY_DIRECTORY"] = str(self.folder)
        environment["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] = "1"  # deaths by a task
        with (self.folder / f"{kind}-{len(self._processes)}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", kind, *map(str, options)],
                cwd=self.folder, env=environment, stdout=log, stderr=log,
            )  # fmt: skip
        self._processes.append(process)
        return process

    def logs(self) -> str:
        """What all processes have printed."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def close(self) -> None:
        """End all processes, the workers first."""
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=3)  # one whose scheduler is gone would wait for it
            process.kill()
            process.wait()


def wait_until(true: Callable[[], object], otherwise: str) -> None:
    """Return once something is true; AssertionError with a message if it never is."""
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of every file in a folder and those in it."""
    files = filter(Path.is_file, folder.rglob("*"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def kill(process: subprocess.Popen) -> None:
    """End a process as the kernel does when memory runs out."""
    process.send_signal(signal.SIGKILL)
    process.wait()
