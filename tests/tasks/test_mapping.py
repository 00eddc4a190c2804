"""A function over many items at once: order, errors, and processes that are killed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from gimp_fast.errors import FaultError, GimpError
from gimp_fast.tasks.mapping import FEWEST, parallel_map

FUNCTIONS = """
import os, signal
from gimp_fast.errors import Fault, FaultError

def place(item):
    return item, os.getpid()

def fault(item):
    if item == 70:
        raise FaultError([Fault("a", "b", "c", "d"), Fault("e", "f", "g", "h")], "these")
    return item

def die(item):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def functions(module_of):
    return module_of("functions_to_map", FUNCTIONS)


def test_results_keep_the_order_of_the_items(functions):
    found = list(parallel_map(functions.place, range(FEWEST + 9), workers=2))
    assert [item for item, _ in found] == list(range(FEWEST + 9))
    assert os.getpid() not in {process for _, process in found}


@pytest.mark.parametrize(("items", "workers"), [(3, 4), (FEWEST, 1)])
def test_few_items_stay_in_this_process(functions, items, workers):
    found = list(parallel_map(functions.place, range(items), workers=workers))
    assert {process for _, process in found} == {os.getpid()}


def test_faults_arrive_whole(functions):
    with pytest.raises(FaultError) as error:
        list(parallel_map(functions.fault, range(FEWEST + 20), workers=2))
    assert [fault.kind for fault in error.value.faults] == ["a", "e"]
    assert error.value.subject == "these"


def test_a_killed_process_is_told(functions):
    with pytest.raises(GimpError, match="--workers 1"):
        list(parallel_map(functions.die, range(FEWEST), workers=2))


SCRIPT = """
import functions_to_map
from gimp_fast.tasks.mapping import FEWEST, parallel_map
print(len(list(parallel_map(functions_to_map.place, range(FEWEST), workers=2))))
"""


def test_a_script_needs_no_guard_and_runs_once(functions, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout == f"{FEWEST}\n"


def test_no_processes_is_one_message(functions, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(errno.ENOSYS, "Function not implemented")  # as without /dev/shm

    monkeypatch.setattr("gimp_fast.tasks.local.ProcessPoolExecutor", refuse)
    with pytest.raises(
        GimpError, match=r"cannot start \(Function not implemented\); use --workers 1"
    ):
        list(parallel_map(functions.place, range(FEWEST), workers=2))
