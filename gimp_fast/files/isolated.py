"""Runs a reader in another process, which may crash or hang without harm.

HDF5 trusts what a file says about itself: one flipped bit can make it loop forever or end the
process (both happened when readers were tested with damaged files).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gimp_fast.errors import FaultError, GimpError, one_line

Result = TypeVar("Result")
SECONDS = 60.0  # of computing, for any file, and more for a large one
PATIENCE = 10  # as much by the clock: other programs may need the machine, or the disk be slow
_BYTES_A_SECOND = 2 << 20
# Ctrl-C is for the process that asks, which ends this one.
_SERVE = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
_SERVE += "from gimp_fast.files.isolated import serve; serve()"


def run_isolated(function: Callable[..., Result], path: Path, *args: object) -> Result:
    """The result of ``function(path, *args)`` in another process, which is kept for later calls.

    Args:
        function: importable by name; arguments and result can be pickled.
        path: the file it reads.

    Raises:
        FaultError: as the function raises it; or the process died, or did not end in time.
    """
    seconds = SECONDS + _size(path) / _BYTES_A_SECOND
    try:
        worker = _idle.pop()
    except IndexError:
        worker = _Worker()
    try:
        # The process may have been started in another folder than the current one.
        reply = worker.call(seconds, (os.getcwd(), function, path, *args))
    except _ReaderEnded as ended:
        worker.close()
        raise FaultError.of("unreadable-file", path, str(ended), "a file without damage") from ended
    # A process is used again only after it has answered: an old answer could still arrive.
    _idle.append(worker)
    if isinstance(reply, FaultError):
        raise reply
    return reply


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 of what cannot be found."""
    try:
        if not os.path.isdir(path):
            return os.path.getsize(path)
        return sum(os.lstat(inside).st_size for inside in Path(path).rglob("*"))
    except OSError:
        return 0


class _ReaderEnded(Exception):
    """The other process ended or did not answer in time."""


class _Worker:
    def __init__(self) -> None:
        # Not multiprocessing: it would run the user's script a second time.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command, pipe = [sys.executable, "-c", _SERVE], subprocess.PIPE
        try:
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment)
        except OSError as error:
            raise GimpError(
                f"no process could be started to read files in ({one_line(error)}); close other "
                "programs, or raise the limits of processes and open files (ulimit -u, -n)"
            ) from error

    def call(self, seconds: float, request: tuple) -> object:
        process = self._process
        too_late = threading.Event()

        def give_up() -> None:
            too_late.set()
            process.kill()

        timer = threading.Timer(PATIENCE * seconds, give_up)
        timer.start()
        try:
            pickle.dump((seconds, *request), process.stdin)
            process.stdin.flush()
            return pickle.load(process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            code = process.wait()
            if too_late.is_set():
                raise _ReaderEnded(
                    f"no end of reading it after {PATIENCE * seconds:.0f} s"
                ) from error
            if code == -signal.SIGPROF:
                raise _ReaderEnded(
                    f"no end of reading it after {seconds:.0f} s of computing"
                ) from error
            raise _ReaderEnded(f"a crash of the library that reads it (code {code})") from error
        finally:
            timer.cancel()

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # a request that it never read
                stream.close()
        self._process.kill()
        self._process.wait()


_idle: list[_Worker] = []
# A forked process must not talk into the pipes of its parent; it starts processes of its own.
os.register_at_fork(after_in_child=_idle.clear)


@atexit.register
def close_workers() -> None:
    """End the idle processes."""
    while _idle:
        _idle.pop().close()


def serve() -> None:
    """Answer requests until the input ends; this is what the other process runs."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not mix with the replies
    while True:
        try:
            seconds, folder, function, *args = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        os.chdir(folder)
        signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal ends this process
        try:
            reply = function(*args)
        except FaultError as error:
            reply = error
        signal.setitimer(signal.ITIMER_PROF, 0)
        pickle.dump(reply, replies, protocol=5)
        replies.flush()
