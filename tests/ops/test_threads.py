"""Work side by side: on one thread each, errors raised, torch's settings as they were."""

from __future__ import annotations

import threading

import pytest
import torch

from gimp_fast.ops.products import run_side_by_side


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def threads_of_a_new_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def test_tasks_run_on_one_thread_each_without_gradients(two_threads):
    seen = []
    x = torch.ones(1, requires_grad=True)
    run_side_by_side([lambda: seen.append((torch.get_num_threads(), (x * 2).requires_grad))] * 5)
    assert seen == [(1, False)] * 5


def test_settings_are_as_before(two_threads):
    run_side_by_side([lambda: None] * 3)
    assert torch.get_num_threads() == 2
    assert threads_of_a_new_thread() == 2
    assert torch.is_grad_enabled()


def test_an_error_is_raised(two_threads):
    def fail():
        raise ValueError("of a task")

    with pytest.raises(ValueError, match="of a task"):
        run_side_by_side([lambda: None, fail])
    assert threads_of_a_new_thread() == 2
