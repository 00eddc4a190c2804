"""Calibration slopes: planted ones, a peer, resamples, and what has no slope."""

from __future__ import annotations

import numpy as np
import pytest

from gimp_fast.evaluation.kaplan_meier import Outcomes
from gimp_fast.evaluation.ridge_cox import fit_ridge_cox
from gimp_fast.evaluation.slopes import cox_slope, linear_slope


def planted(n: int, slope: float, ties: bool, seed: int = 0) -> tuple[np.ndarray, Outcomes]:
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=n)
    time = rng.exponential(np.exp(-slope * risk)) + 1e-3
    lost = rng.exponential(1.5, n) + 1e-3
    seen = np.minimum(time, lost)
    return risk, Outcomes(np.ceil(seen * 5) if ties else seen, time <= lost)


@pytest.mark.parametrize("slope", [-0.5, 0.4, 1.0])
def test_a_planted_cox_slope_is_found(slope):
    risk, outcomes = planted(4000, slope, ties=False)
    assert cox_slope(outcomes, risk, np.ones((1, 4000)))[0] == pytest.approx(slope, abs=0.08)


@pytest.mark.parametrize("ties", [False, True], ids=["no-ties", "ties"])
def test_it_is_the_coefficient_of_coxs_model(ties):
    risk, outcomes = planted(151, 0.7, ties)
    model = fit_ridge_cox(risk[:, None], outcomes, 1e-9)
    found = cox_slope(outcomes, risk, np.ones((1, 151)))[0]
    assert found == pytest.approx(model.coefficients[0] / model.sd[0], rel=1e-5)


def test_a_resample_is_as_its_patients_repeated():
    risk, outcomes = planted(61, 0.7, ties=True)
    weights = np.random.default_rng(1).multinomial(61, np.full(61, 1 / 61), size=5).astype(float)
    found = cox_slope(outcomes, risk, weights)
    for row, value in zip(weights.astype(int), found, strict=True):
        rows = np.repeat(np.arange(61), row)
        alone = cox_slope(outcomes.chosen(rows), risk[rows], np.ones((1, 61)))[0]
        assert value == pytest.approx(alone, rel=1e-5)


def test_without_a_maximum_there_is_no_cox_slope():
    times = np.arange(1.0, 9.0)
    every = Outcomes(times, np.ones(8, bool))
    once = np.ones((1, 8))
    assert np.isnan(cox_slope(every, -times, once))  # a perfect order
    assert np.isnan(cox_slope(every, np.ones(8), once))
    assert np.isnan(cox_slope(Outcomes(times, np.zeros(8, bool)), times, once))


def test_the_line_is_that_of_least_squares():
    rng = np.random.default_rng(2)
    predicted = rng.normal(50, 3, 33)
    truth = 4 - 0.5 * predicted + rng.normal(size=33)
    weights = rng.multinomial(33, np.full(33, 1 / 33), size=4).astype(float)
    slope, intercept = linear_slope(predicted, truth, weights)
    for row, a, b in zip(weights, slope, intercept, strict=True):
        expected = np.polyfit(predicted, truth, 1, w=np.sqrt(row))
        np.testing.assert_allclose((a, b), expected, rtol=1e-8)


def test_equal_predictions_have_no_line():
    slope, intercept = linear_slope(np.full(4, 2.0), np.arange(4.0), np.ones((2, 4)))
    assert np.isnan(slope).all()
    assert np.isnan(intercept).all()
