"""Reading many files at once: order, errors, and processes that are killed."""

from __future__ import annotations

import os
import signal

import pytest

from gimp_fast.data.parallel import FEWEST, parallel_map
from gimp_fast.errors import Fault, FaultError, GimpError


def _place(item: int) -> tuple[int, int]:
    return item, os.getpid()


def _fault(item: int) -> int:
    if item == 70:
        raise FaultError([Fault("a", "b", "c", "d"), Fault("e", "f", "g", "h")], "these")
    return item


def _die(item: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_results_keep_the_order_of_the_items():
    found = list(parallel_map(_place, range(FEWEST + 9), workers=2))
    assert [item for item, _ in found] == list(range(FEWEST + 9))
    assert os.getpid() not in {process for _, process in found}


@pytest.mark.parametrize(("items", "workers"), [(3, 4), (FEWEST, 1)])
def test_few_items_stay_in_this_process(items, workers):
    found = list(parallel_map(_place, range(items), workers=workers))
    assert {process for _, process in found} == {os.getpid()}


def test_faults_arrive_whole():
    with pytest.raises(FaultError) as error:
        list(parallel_map(_fault, range(FEWEST + 20), workers=2))
    assert [fault.kind for fault in error.value.faults] == ["a", "e"]
    assert error.value.subject == "these"


def test_a_killed_process_is_told():
    with pytest.raises(GimpError, match="--workers 1"):
        list(parallel_map(_die, range(FEWEST), workers=2))
