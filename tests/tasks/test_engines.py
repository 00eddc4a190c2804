"""Engines of this machine: order, errors, stopping, and processes of their own."""

from __future__ import annotations

import os
import pickle
import threading
import time
from functools import partial
from multiprocessing import popen_forkserver

import pytest

from gimp_fast.errors import FaultError, StoppedError
from gimp_fast.tasks import child
from gimp_fast.tasks.child import run_in_child
from gimp_fast.tasks.engine import LostTaskError, as_completed, is_unwanted
from gimp_fast.tasks.local import ProcessEngine, ThreadEngine, place

FUNCTIONS = """
import multiprocessing, os, signal, sys, time
from gimp_fast.tasks.child import run_in_child
from gimp_fast.errors import FaultError

def note(file, text):
    with open(file, "a") as stream:
        stream.write(text + "\\n")

def fail(number):
    raise FaultError.of("kind", number, "b", "c")

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def leave(code):
    sys.exit(code)

def note_environment(file):
    note(file, os.environ.get("CUDA_VISIBLE_DEVICES", "none"))

def be_a_daemon_with_a_child(payload):
    multiprocessing.current_process()._config["daemon"] = True
    try:
        code = run_in_child("functions_of_tasks:leave", payload).code
        return code, multiprocessing.current_process().daemon
    finally:
        multiprocessing.current_process()._config["daemon"] = False

def save_when_told(file):
    signal.signal(signal.SIGTERM, lambda *_: (note(file, "saved"), sys.exit(75)))
    note(file, "began")
    while True:
        time.sleep(0.01)
"""


@pytest.fixture
def functions(module_of):
    return module_of("functions_of_tasks", FUNCTIONS)


def test_futures_come_as_they_end():
    gates = [threading.Event() for _ in range(3)]
    for_next = iter([1, 2, 0])
    with ThreadEngine(3) as engine:
        futures = [engine.submit(gate.wait) for gate in gates]
        order = []
        gates[next(for_next)].set()
        for future in as_completed(futures):
            order.append(futures.index(future))
            gates[next(for_next, 0)].set()
    assert order == [1, 2, 0]


def test_no_futures_are_no_work():
    assert list(as_completed([])) == []


def test_leaving_drops_what_waits_and_ends_what_runs():
    began, ended = [], []

    def work(number):
        began.append(number)
        while not is_unwanted():
            time.sleep(0.01)
        ended.append(number)

    def check():
        if len(began) == 2:
            raise StoppedError("enough")

    with pytest.raises(StoppedError), ThreadEngine(2) as engine:
        list(as_completed([engine.submit(work, number) for number in range(5)], check))
    assert (sorted(began), sorted(ended)) == ([0, 1], [0, 1])
    assert not is_unwanted()


def test_tasks_at_the_same_time_have_different_places():
    barrier = threading.Barrier(3, timeout=60)

    def look():
        barrier.wait()
        return place()

    with ThreadEngine(3) as engine:
        futures = [engine.submit(look) for _ in range(6)]
        places = sorted(future.result() for future in futures)
    assert places == [0, 0, 1, 1, 2, 2]
    assert place() == 0


def test_a_pool_passes_on_results_faults_and_deaths(functions):
    with ProcessEngine(1) as engine:
        assert engine.submit(os.getpid).result() != os.getpid()
        with pytest.raises(FaultError) as error:
            engine.submit(functions.fail, 3).result()
        assert error.value.faults[0].where == "3"
        with pytest.raises(LostTaskError, match="--workers 1"):
            engine.submit(functions.die).result()


def test_one_thread_at_a_time_reads_exit_codes(functions, monkeypatch):
    poll, alone = popen_forkserver.Popen.poll, []

    def noting(process, *arguments):
        alone.append(child._starting.locked())
        return poll(process, *arguments)

    monkeypatch.setattr(popen_forkserver.Popen, "poll", noting)
    with ThreadEngine(4) as engine:
        leave = partial(run_in_child, "functions_of_tasks:leave")
        futures = [engine.submit(leave, pickle.dumps((code,))) for code in range(1, 13)]
        assert [future.result().code for future in futures] == list(range(1, 13))
    assert alone
    assert all(alone)


@pytest.mark.parametrize(
    ("function", "arguments", "code"), [("leave", (0,), 0), ("leave", (7,), 7), ("die", (), -9)]
)
def test_how_a_child_ends(functions, function, arguments, code):
    ended = run_in_child(f"functions_of_tasks:{function}", pickle.dumps(arguments))
    assert ended.code == code
    assert ended.seconds >= 0


def test_children_share_gpus(functions, tmp_path):
    file = str(tmp_path / "notes")
    with ThreadEngine(3) as engine:
        for gpus in (0, 1, 2, 2):
            work = ("functions_of_tasks:note_environment", pickle.dumps((file,)), gpus)
            assert engine.submit(run_in_child, *work).result().code == 0
    with open(file) as stream:
        found = stream.read().split()
    assert found[:2] == ["none", "none"]
    assert set(found[2:]) <= {"0", "1"}
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_child_is_told_to_stop_and_may_save(functions, tmp_path):
    file = tmp_path / "notes"

    def check():
        if file.is_file():
            raise StoppedError("enough")

    work = ("functions_of_tasks:save_when_told", pickle.dumps((str(file),)))
    with ThreadEngine(1) as engine:
        future = engine.submit(run_in_child, *work)
        with pytest.raises(StoppedError):
            list(as_completed([future], check))
    assert file.read_text().split() == ["began", "saved"]
    assert future.result().code == 75


def test_a_daemon_may_have_children(functions):
    """Workers of dask that have a nanny are daemons."""
    with ProcessEngine(1) as engine:
        ended = engine.submit(functions.be_a_daemon_with_a_child, pickle.dumps((3,)))
        assert ended.result() == (3, True)
