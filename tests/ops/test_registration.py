"""Operators run without torch's dispatcher, unless something wants to see them."""

from __future__ import annotations

import pytest
import torch
from builders.calls import Calls
from torch.profiler import profile

from gimp_fast.ops import registration
from gimp_fast.ops.packing import Bags
from gimp_fast.ops.segment_means import segment_means, segment_means_fwd

NAME = "gimp_fast::segment_means_fwd"


def rows(cls=torch.Tensor):
    return torch.arange(12.0).view(6, 2).as_subclass(cls).requires_grad_()


def means(x):
    return segment_means(x, Bags.of_lengths([6], x.device), 3)


class Subclass(torch.Tensor):
    """A tensor that wants to see what is done with it."""


@pytest.fixture
def direct(monkeypatch):
    """The calls of the operator's own code that did not come from torch's dispatcher."""
    calls, original = [], registration.implementations[segment_means_fwd]

    def counted(*inputs):
        calls.append(inputs)
        return original(*inputs)

    monkeypatch.setitem(registration.implementations, segment_means_fwd, counted)
    return calls


@pytest.mark.parametrize("grad", [True, False])
def test_without_a_listener_the_dispatcher_is_left_out(direct, grad):
    with torch.set_grad_enabled(grad):
        out = means(rows())
    assert len(direct) == 1
    assert out.requires_grad == grad


def test_a_mode_sees_operators(direct):
    with Calls() as calls:
        means(rows())
    assert calls.found[NAME] == 1
    assert not direct


def test_a_profiler_sees_operators(direct):
    with profile() as profiler:
        means(rows())
    assert NAME in {event.key for event in profiler.key_averages()}
    assert not direct


@pytest.mark.parametrize(
    "make", [lambda: rows(Subclass), lambda: rows().to("meta")], ids=["subclass", "meta"]
)
def test_tensors_that_are_not_plain_are_dispatched(direct, make):
    means(make())
    assert not direct
