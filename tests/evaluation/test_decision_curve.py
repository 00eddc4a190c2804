"""Net benefit: by hand, at its ends, and with censored patients."""

from __future__ import annotations

import numpy as np
import pytest

from gimp_fast.evaluation.decision_curve import (
    THRESHOLDS,
    decision_curve,
    decision_curve_at,
    net_benefit,
    net_benefit_at,
)
from gimp_fast.evaluation.intervals import patient_weights
from gimp_fast.evaluation.kaplan_meier import Outcomes, kaplan_meier

PROBABILITY = np.array([0.1, 0.4, 0.35, 0.8, 0.6])
TRUTH = np.array([False, False, True, True, True])
ONCE = np.ones((1, 5))


def test_by_hand():
    # At 0.5 two are treated, both rightly; at 0.2 four, one of them for nothing; odds 1 and 1 / 4.
    found = net_benefit(PROBABILITY, TRUTH, np.array([0.2, 0.4, 0.5]), ONCE)[0]
    np.testing.assert_allclose(found, [(3 - 1 / 4) / 5, (2 - 2 / 3) / 5, 2 / 5])


def test_the_ends_are_those_of_treating_all_and_none():
    near = net_benefit(PROBABILITY, TRUTH, np.array([0.05, 0.9]), ONCE)[0]
    odds = 0.05 / 0.95
    np.testing.assert_allclose(near, [0.6 - 0.4 * odds, 0.0])
    curve = decision_curve(PROBABILITY, TRUTH, patient_weights(5, 40))
    expected = 0.6 - 0.4 * THRESHOLDS / (1 - THRESHOLDS)
    np.testing.assert_allclose(curve.treat_all, expected, atol=1e-12)
    first, last = curve.model[0], curve.model[-1]
    assert first.value == pytest.approx(curve.treat_all[0])
    assert (last.value, last.low, last.high) == (0, 0, 0)
    assert (curve.treated[0], curve.treated[-1]) == (1, 0)
    assert curve.gain[0].value == pytest.approx(0)


def test_the_gain_is_over_the_better_of_both():
    curve = decision_curve(PROBABILITY, TRUTH, patient_weights(5, 40))
    better = np.maximum(curve.treat_all, 0)
    values = np.array([one.value for one in curve.model])
    np.testing.assert_allclose([one.value for one in curve.gain], values - better, atol=1e-12)


def test_nobody_censored_is_as_classes():
    rng = np.random.default_rng(0)
    outcomes = Outcomes(rng.exponential(10, 40) + 0.1, np.ones(40, bool))
    probability, weights = rng.random(40), patient_weights(40, 7)
    found = net_benefit_at(outcomes, probability, 8.0, THRESHOLDS, weights)
    expected = net_benefit(probability, outcomes.time <= 8.0, THRESHOLDS, weights)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_censored_by_hand():
    # Treated: times 1 (event), 2 (censored), 3 (event), 5. By 4 the curve is 3/4 · 1/2.
    outcomes = Outcomes(np.array([1.0, 2, 3, 5, 6]), np.array([True, False, True, False, False]))
    probability = np.array([0.9, 0.9, 0.9, 0.9, 0.1])
    found = net_benefit_at(outcomes, probability, 4.0, np.array([0.5]), ONCE)[0, 0]
    died = 1 - 3 / 8
    assert found == pytest.approx((died - (1 - died)) * 0.8)
    everyone = decision_curve_at(outcomes, probability, 4.0, ONCE, np.array([0.25])).treat_all[0]
    died = 1 - float(kaplan_meier(outcomes).at(4.0))
    assert everyone == pytest.approx(died - (1 - died) / 3)


def test_nobody_treated_who_was_followed_is_not_defined():
    outcomes = Outcomes(np.array([1.0, 2, 5]), np.array([True, False, False]))
    probability = np.array([0.9, 0.9, 0.1])
    curve = decision_curve_at(outcomes, probability, 4.0, np.ones((1, 3)), np.array([0.5, 0.95]))
    assert [one is None for one in curve.model] == [True, False]
    with pytest.raises(ValueError, match="nobody was followed until 9"):
        decision_curve_at(outcomes, probability, 9.0, np.ones((1, 3)))


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.1])
def test_thresholds_are_between_zero_and_one(threshold):
    with pytest.raises(ValueError, match="above 0 and below 1"):
        net_benefit(PROBABILITY, TRUTH, np.array([threshold]), ONCE)
