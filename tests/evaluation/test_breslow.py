"""Breslow's baseline by hand, and for risks too large for exp."""

from __future__ import annotations

import numpy as np
import pytest
from builders.outcomes import random_outcomes

from gimp_fast.evaluation.breslow import breslow
from gimp_fast.evaluation.kaplan_meier import Outcomes


def test_baseline_by_hand():
    outcomes = Outcomes(np.array([2.0, 1, 2, 3]), np.array([True, True, True, False]))
    baseline = breslow(outcomes, np.log([1.0, 2, 1, 3]))
    assert baseline.times.tolist() == [1, 2, 3]
    hazard = [1 / 7, 1 / 7 + 2 / 5, 1 / 7 + 2 / 5]
    assert np.exp(baseline.log_hazard) == pytest.approx(hazard)
    found = baseline.survival(np.log([1.0, 2.0]), np.array([0.5, 1, 3]))
    hazard_at = np.array([0, hazard[0], hazard[1]])
    assert found == pytest.approx(np.exp(-np.outer([1, 2], hazard_at)))


def test_of_equal_risks_it_is_the_sum_of_shares():
    outcomes = random_outcomes(40, "tied-times")
    baseline = breslow(outcomes, np.zeros(40))
    died = [(outcomes.event & (outcomes.time == t)).sum() for t in baseline.times]
    left = [(outcomes.time >= t).sum() for t in baseline.times]
    assert np.exp(baseline.log_hazard) == pytest.approx(np.cumsum(np.divide(died, left)))


@pytest.mark.parametrize("shift", [-3000.0, 3000.0])
def test_risks_too_large_for_exp(shift):
    outcomes, risk = random_outcomes(30), np.random.default_rng(0).normal(size=30)
    horizons = np.array([0.01, 3.0, 9.0])
    plain = breslow(outcomes, risk).survival(risk, horizons)
    shifted = breslow(outcomes, risk + shift).survival(risk + shift, horizons)
    assert shifted == pytest.approx(plain, abs=1e-11)
    extreme = breslow(outcomes, risk).survival(np.array([-3000.0, 3000.0]), horizons)
    assert extreme.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_refusals():
    outcomes = random_outcomes(5)
    with pytest.raises(ValueError, match="must be 5 finite numbers"):
        breslow(outcomes, np.zeros(4))
    with pytest.raises(ValueError, match="must be 5 finite numbers"):
        breslow(outcomes, np.array([0, 0, 0, 0, np.nan]))
    with pytest.raises(ValueError, match="needs an event; all patients are censored"):
        breslow(Outcomes(outcomes.time, np.zeros(5, bool)), np.zeros(5))
    last = outcomes.time.max()
    with pytest.raises(ValueError, match="Horizon 99 is after the last time of training"):
        breslow(outcomes, np.zeros(5)).survival(np.zeros(2), np.array([last, 99.0]))
