"""Runs a task in a process of its own: one that crashes, or is told to stop, harms no other.

Such processes are forked from one that has imported what they need: starting one then costs
milliseconds.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import connection, forkserver
from typing import Any

from gimp_fast import plugins
from gimp_fast.tasks.engine import POLL_SECONDS, is_unwanted
from gimp_fast.tasks.local import place
from gimp_fast.tasks.processes import without_main

GRACE_SECONDS = 60  # for a task that was told to stop, to finish its step and save its state
_OF_SERVER = {
    # Not to look for the package in the current folder, as it would by default: that may hold the
    # sources, without what is built of them.
    "PYTHONSAFEPATH": "1",
    # NumPy's products are small, and its threads would wait for them on the cores of other tasks.
    "OPENBLAS_NUM_THREADS": "1",
}
_starting = threading.Lock()
_running: set[Any] = set()


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, negative for a signal, and the seconds that it took."""

    code: int
    seconds: float


def run_in_child(function: str, payload: bytes, gpus: int = 0) -> Ended:
    """How a process ended that called a function.

    If the task is no longer wanted, the process gets SIGTERM, and SIGKILL if it does not end. It
    also gets SIGTERM when this process ends.

    Args:
        function: ``"module:name"``; the module is imported once for all tasks.
        payload: its arguments, pickled: this process need not import what they are made of.
        gpus: that the tasks of this machine share; 0 and 1 leave the choice to the environment.
    """
    environment = {name: os.environ[name] for name in [plugins.VARIABLE] if name in os.environ}
    if gpus > 1:
        environment["CUDA_VISIBLE_DEVICES"] = str(place() % gpus)
    context = multiprocessing.get_context("forkserver")
    with _starting, without_main(), _may_have_children():
        _start_server(context, function.partition(":")[0])
        process = context.Process(target=_call, args=(function, payload, environment))
        process.start()
    began = time.perf_counter()
    _running.add(process)
    while not _ends_within(POLL_SECONDS, process):
        if is_unwanted():
            process.terminate()
            if not _ends_within(GRACE_SECONDS, process):
                process.kill()
            break
    _ends_within(None, process)
    with _starting:  # starting a process reads the exit codes of all; two readers would share one
        process.join()
        code = process.exitcode
    _running.discard(process)
    return Ended(code, time.perf_counter() - began)


def _ends_within(seconds: float | None, process: Any) -> bool:
    """Whether a process ends in this time; does not read its exit code."""
    return bool(connection.wait([process.sentinel], seconds))


def _start_server(context: Any, module: str) -> None:
    """Start the process that others are forked from, with what they import already loaded."""
    context.set_forkserver_preload([module])
    before = {name: os.environ.get(name) for name in _OF_SERVER}
    os.environ.update(_OF_SERVER)
    try:
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _may_have_children() -> Iterator[None]:
    """Within the block, a process that was started as a daemon may start others.

    The nanny of dask starts its worker so. Python forbids daemons to have children because these
    would outlive it; ours end with their parent.
    """
    config = multiprocessing.current_process()._config
    before = config.get("daemon", False)
    config["daemon"] = False
    try:
        yield
    finally:
        config["daemon"] = before


@atexit.register
def _end_children() -> None:
    """Else Python would wait for them when this process ends, as a worker of dask does if told."""
    for process in list(_running):
        process.terminate()


def _call(function: str, payload: bytes, environment: dict[str, str]) -> None:
    """Entry point of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # after Ctrl-C, the command stops all tasks itself
    gc.freeze()  # what was imported lives on: looking through it again and again takes 3 % of a run
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(environment)
    module, _, name = function.partition(":")
    target: Callable[..., None] = getattr(importlib.import_module(module), name)
    target(*pickle.loads(payload))


def _end_with_parent() -> None:
    """If the parent is killed, the task saves its state and ends too."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
