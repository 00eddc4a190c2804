"""Bins of time: their edges from training events, the bin of a time, survival between edges."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch

from gimp_fast.targets.survival_losses import bin_of, bins_of_training, interpolated_survival

INF = math.inf


def edges_of(times: list[float], count: int, event: list[int] | None = None) -> list[float]:
    event = [1] * len(times) if event is None else event
    time = torch.tensor(times, dtype=torch.float64)
    return bins_of_training(time, torch.tensor(event, dtype=torch.bool), count).tolist()


@pytest.mark.parametrize(
    ("times", "count", "edges"),
    [
        pytest.param([3, 1, 2, 4, 5], 1, [0, INF], id="K1"),
        pytest.param([3, 1, 2, 4, 5], 2, [0, 3, INF], id="K2-odd"),
        pytest.param([3, 1, 2, 4], 2, [0, 2.5, INF], id="K2-even"),
        pytest.param([3, 1, 2, 4, 5], 4, [0, 2, 3, 4, INF], id="K4"),
        pytest.param([4, 1, 2, 8], 4, [0, 1.75, 3, 5, INF], id="K4-one-event-each"),
        pytest.param([1, 1, 2, 2, 2, 3], 2, [0, 2, INF], id="K2-ties"),
        pytest.param([2, 2, 2], 1, [0, INF], id="K1-all-equal"),
        pytest.param([0, 1], 2, [0, 0.5, INF], id="event-at-0"),
    ],
)
def test_edges_are_quantiles_of_times(times, count, edges):
    assert edges_of(times, count) == edges


def test_edges_are_those_of_qcut_and_see_events_only():
    time = torch.rand(53, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 100
    event = torch.arange(53) % 3 > 0
    found = bins_of_training(time, event, 4)
    _, qcut = pd.qcut(time[event].numpy(), 4, retbins=True)
    assert found[1:-1].tolist() == pytest.approx(qcut[1:-1].tolist(), rel=1e-14)
    assert bin_of(time[event], found).bincount().tolist() == [9, 8, 9, 9]


@pytest.mark.parametrize("count", [3, 7, 10])
def test_a_quantile_that_is_a_time_equals_it(count):
    times = [0.1 * i for i in range(1, 2 * count + 2)]
    assert edges_of(times, count)[1:-1] == times[2:-1:2]


@pytest.mark.parametrize(
    ("time", "bin"),
    [(-1.0, 0), (0.0, 0), (1.999, 0), (2.0, 1), (4.9, 1), (5.0, 2), (1e9, 2), (INF, 2)],
)
@pytest.mark.parametrize("last", [9.0, INF], ids=["finite", "infinite"])
def test_a_time_on_an_edge_is_in_the_bin_that_starts_there(time, bin, last):
    edges = torch.tensor([0.0, 2.0, 5.0, last])
    assert bin_of(torch.tensor([time]), edges).tolist() == [bin]


def test_bins_of_whole_and_of_single_numbers():
    edges = torch.tensor([0.0, 2.5, INF], dtype=torch.float64)
    assert bin_of(torch.tensor([2, 3, 0]), edges).tolist() == [0, 1, 0]
    assert bin_of(torch.tensor([2.5]), edges).dtype == torch.int64
    assert bin_of(torch.tensor([7.0]), torch.tensor([0.0, INF])).tolist() == [0]


SURVIVAL = torch.tensor([[0.8, 0.2, 0.05], [1.0, 0.5, 0.0]], dtype=torch.float64)
EDGES = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        pytest.param(-INF, [1, 1], id="long-before"),
        pytest.param(0.5, [1, 1], id="before"),
        pytest.param(1.0, [1, 1], id="first-edge"),
        pytest.param(2.0, [0.8, 1], id="second-edge"),
        pytest.param(4.0, [0.2, 0.5], id="third-edge"),
        pytest.param(8.0, [0.05, 0], id="last-edge"),
        pytest.param(9.0, [0.05, 0], id="beyond"),
        pytest.param(INF, [0.05, 0], id="never"),
    ],
)
def test_survival_at_and_outside_the_edges_is_exact(time, expected):
    found = interpolated_survival(SURVIVAL, EDGES, torch.tensor([time], dtype=torch.float64))
    assert found.flatten().tolist() == expected


def test_the_logarithm_of_survival_is_linear_between_edges():
    times = torch.tensor([1.25, 2.5, 3.0, 5.0], dtype=torch.float64)
    found = interpolated_survival(SURVIVAL[:1], EDGES, times)[0].tolist()
    expected = [
        math.exp(0.25 * math.log(0.8)),
        math.exp(0.75 * math.log(0.8) + 0.25 * math.log(0.2)),
        math.sqrt(0.8 * 0.2),
        math.exp(0.75 * math.log(0.2) + 0.25 * math.log(0.05)),
    ]
    assert found == pytest.approx(expected, rel=1e-14)


def test_survival_that_falls_to_zero_is_zero_within_its_bin():
    found = interpolated_survival(SURVIVAL[1:], EDGES, torch.tensor([3.999, 4.0, 4.001, 7.0]))
    assert found[0].tolist() == pytest.approx([0.5, 0.5, 0, 0], abs=1e-3)
    assert found[0, 2:].tolist() == [0, 0]


def test_survival_stays_in_a_bin_without_end():
    edges = torch.tensor([0.0, 2.0, 4.0, INF])
    found = interpolated_survival(SURVIVAL[:1], edges, torch.tensor([4.0, 5.0, 1e30, INF]))
    assert found[0].tolist() == [0.2, 0.2, 0.2, 0.05]


def test_survival_of_a_single_bin_and_at_no_time():
    half = torch.tensor([[0.25]])
    found = interpolated_survival(half, torch.tensor([0, 2]), torch.tensor([1, 2, 0]))
    assert found.tolist() == [[0.5, 0.25, 1.0]]
    assert found.dtype == torch.float32
    assert interpolated_survival(SURVIVAL, EDGES, torch.tensor([])).shape == (2, 0)


TIME, EVENT = torch.tensor([1.0, 2.0, 2.0, 3.0]), torch.tensor([True, True, False, True])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: edges_of([2, 2, 2], 2), "found 1 distinct times of events; expected at least 2"),
        (lambda: edges_of([1, 2, 3], 3, [1, 0, 1]), "found 2 distinct .* at least 3, one for each"),
        (lambda: edges_of([1, 2], 1, [0, 0]), "found 0 distinct times"),
        (lambda: edges_of([1, 1, 1, 1, 2], 2), r"equal times .* event, \[0, 5\]; .*fewer bins"),
        (lambda: edges_of([1, 2, 3, 3, 4, 5], 4), r"equal times .* event, \[2, 0, 2, 2\]"),
        (lambda: edges_of([0, 0, 0, 1, 2], 3), r"equal times .* event, \[0, 3, 2\]"),
        (lambda: edges_of([1, -2.5], 1), "time: found -2.5; expected 0 or more"),
        (lambda: edges_of([1, math.nan], 1), "time: found nan"),
        (lambda: edges_of([1, INF], 1), "time: found inf; expected 0 or more, and finite"),
        (lambda: edges_of([1, 2], 0), "count: found 0; expected 1 or more"),
        (lambda: bins_of_training(TIME[:3], EVENT, 2), r"event: found shape \(4,\); expected \(3"),
        (lambda: bins_of_training(TIME[None], EVENT, 2), r"time: found shape \(1, 4\); .*\(N\)"),
        (lambda: bins_of_training(TIME, EVENT.int(), 2), "event: found torch.int32"),
        (lambda: bin_of(TIME[0], EDGES), r"time: found shape \(\); expected \(N\)"),
        (lambda: bin_of(TIME * math.nan, EDGES), "time: found NaN"),
        (lambda: bin_of(TIME, EDGES.flip(0)), r"edges: found \[8.0, .*; expected .* ascending"),
        (lambda: bin_of(TIME, EDGES[:1]), "expected two or more, ascending"),
        (lambda: bin_of(TIME, EDGES * math.nan), "edges: found .*nan"),
        (lambda: bin_of(TIME, torch.tensor([-INF, 1.0])), "only the last infinite"),
        (lambda: interpolated_survival(SURVIVAL, EDGES[1:], TIME), r"edges: .* expected \(4\)"),
        (lambda: interpolated_survival(TIME, EDGES, TIME), r"survival: found shape \(4,\)"),
        (lambda: interpolated_survival(SURVIVAL, EDGES, EDGES[None]), r"time: found shape \(1, 4"),
    ],
)  # fmt: skip
def test_bad_input_names_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
