"""New Python processes of the package become forks: they need not import everything again."""

from __future__ import annotations

import concurrent.futures.thread as pools
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import traceback
from multiprocessing import forkserver

from attack.waiting import ends_within


class _ForkedReader:
    """What ``files.isolated`` asks of Popen: the code runs in a fork, which costs milliseconds."""

    def __init__(self, code: str):
        (request_out, request_in), (reply_out, reply_in) = os.pipe(), os.pipe()
        self.returncode: int | None = None
        self.args = code
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(request_out, 0)
            os.dup2(reply_in, 1)
            os.closerange(3, 256)
            sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
            try:
                exec(code, {"__name__": "__main__"})
            except BaseException:  # noqa: BLE001 - a process of its own
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        os.close(request_out)
        os.close(reply_in)
        self.stdin, self.stdout = os.fdopen(request_in, "wb"), os.fdopen(reply_out, "rb")
        self.stderr = None

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not ends_within(self.pid, timeout or 600):
            raise subprocess.TimeoutExpired(self.args, timeout)
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def fork_instead_of_starting() -> None:
    """New Python processes of the package are forks of the child: they do not import again."""
    start = subprocess.Popen

    class Popen(start):
        def __new__(cls, args, *rest, **options):
            if list(args[:2]) == [sys.executable, "-c"] and "gimp_fast" in args[2]:
                return _ForkedReader(args[2])
            return super().__new__(cls)

    subprocess.Popen = Popen
    context = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: context
    context.set_forkserver_preload = lambda names: None
    forkserver.ensure_running = lambda: None
    # A fork that a pool's thread made would wait at its end for that thread: for itself.
    os.register_at_fork(after_in_child=pools._threads_queues.clear)
