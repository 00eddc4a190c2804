"""Scores of predicted numbers, against scikit-learn and repeated patients."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, r2_score

from gimp_fast.evaluation.intervals import patient_weights
from gimp_fast.evaluation.regression import (
    compare_numbers,
    regression_metrics,
    regression_scores,
)


def numbers(n, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(1e4, 3, n)
    return truth + rng.normal(0, 2, n), truth


@pytest.mark.parametrize("n", [3, 7, 50])
def test_values_are_those_of_scikit_learn(n):
    predicted, truth = numbers(n)
    found = {
        k: float(v[0]) for k, v in regression_scores(predicted, truth, np.ones((1, n))).items()
    }
    assert found["mean_absolute_error"] == pytest.approx(mean_absolute_error(truth, predicted))
    assert found["r_squared"] == pytest.approx(r2_score(truth, predicted), rel=1e-9)
    expected = np.corrcoef(predicted, truth)[0, 1]
    assert found["correlation"] == pytest.approx(expected, rel=1e-9)


def test_a_weight_of_two_is_the_patient_twice():
    predicted, truth = numbers(9)
    weights = np.array([[0, 2, 1, 1, 3, 0, 1, 1, 0]])
    rows = np.repeat(np.arange(9), weights[0])
    found = regression_scores(predicted, truth, weights.astype(float))
    twice = regression_scores(predicted[rows], truth[rows], np.ones((1, len(rows))))
    for name in found:
        np.testing.assert_allclose(found[name], twice[name], rtol=1e-9)


def test_intervals_hold_the_value():
    predicted, truth = numbers(40)
    weights = np.random.default_rng(1).multinomial(40, np.full(40, 1 / 40), 300).astype(float)
    for found in regression_metrics(predicted, truth, weights).values():
        assert found.low < found.value < found.high


def test_what_is_not_defined_is_none():
    same = np.full(5, 2.0)
    found = regression_metrics(np.arange(5.0), same, np.ones((3, 5)))
    assert found["r_squared"] is found["correlation"] is None
    assert found["mean_absolute_error"].value == pytest.approx(1.2)
    assert regression_metrics(same, np.arange(5.0), np.ones((3, 5)))["correlation"] is None


def test_differences_are_paired_and_corrected_for_their_number():
    predicted, truth = numbers(30)
    models = {"whole": predicted, "same": predicted.copy(), "worse": predicted + 3}
    weights = patient_weights(30, 400, seed=1)
    found = compare_numbers(models, "whole", truth, weights)
    assert list(found) == ["same", "worse"]
    same = found["same"]["mean_absolute_error"]
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    worse, errors = found["worse"]["mean_absolute_error"], np.abs(predicted + 3 - truth)
    assert worse.value == pytest.approx(errors.mean() - np.abs(predicted - truth).mean())
    assert 0 < worse.low < worse.value < worse.high
    assert worse.p_holm == pytest.approx(2 * worse.p)
    assert found["worse"]["correlation"].value == pytest.approx(0, abs=1e-9)


def test_a_difference_that_is_not_defined_is_none():
    truth = np.arange(5.0)
    models = {"whole": truth + 1, "constant": np.full(5, 2.0)}
    found = compare_numbers(models, "whole", truth, patient_weights(5, 50))["constant"]
    assert found["correlation"] is None
    assert found["mean_absolute_error"].value == pytest.approx(0.2)
