"""The difference of two samples that have nothing in common."""

from __future__ import annotations

import numpy as np
import pytest

from gimp_fast.evaluation.independent import Drawn, independent_difference
from gimp_fast.evaluation.intervals import Estimate


def drawn(mean: float, sd: float, seed: int) -> Drawn:
    draws = np.random.default_rng(seed).normal(mean, sd, 20_000)
    low, high = np.percentile(draws, [2.5, 97.5])
    return Drawn(Estimate(mean, low, high), draws)


def test_variances_add_up():
    found = independent_difference(drawn(0.7, 0.03, 0), drawn(0.8, 0.04, 1))
    assert found.value == pytest.approx(-0.1)
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(0.05, rel=0.03)


def test_of_ends_it_is_nearly_the_same():
    one, other = drawn(0.7, 0.03, 0), drawn(0.8, 0.04, 1)
    found = independent_difference(one, Drawn(other.estimate))
    whole = independent_difference(one, other)
    assert (found.low, found.high) == pytest.approx((whole.low, whole.high), abs=0.004)


def test_draws_that_are_all_alike_are_no_certainty():
    perfect = Drawn(Estimate(1.0, 0.8, 1.0), np.ones(50))
    found = independent_difference(perfect, perfect)
    assert (found.low, found.value, found.high) == pytest.approx((-0.2, 0.0, 0.2))


def test_without_one_there_is_none():
    assert independent_difference(None, drawn(0.7, 0.03, 0)) is None
    assert independent_difference(drawn(0.7, 0.03, 0), None) is None
