"""Intervals of results that no resample can change."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from gimp_fast.evaluation import score_intervals
from gimp_fast.evaluation.intervals import patient_weights
from gimp_fast.evaluation.rates import estimates, metrics_with_intervals

Z2 = norm.ppf(0.975) ** 2


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 7), (20, 20), (3, 8), (949, 949)])
def test_wilson_is_scipys(k, n):
    expected = binomtest(k, n).proportion_ci(method="wilson")
    assert score_intervals.of_share(k / n, n) == pytest.approx((expected.low, expected.high))


def hanley_mcneil(area, positives, negatives):
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (positives - 1) * (q1 - area**2)
    return (spread + (negatives - 1) * (q2 - area**2)) / (positives * negatives)


@pytest.mark.parametrize("area", [1.0, 0.93, 0.5, 0.2, 0.0])
@pytest.mark.parametrize("size", [1, 5, 40])
def test_the_ends_of_an_area_are_as_far_as_their_own_variance_says(area, size):
    """With as many patients of each kind, the variance is Hanley and McNeil's."""
    low, high = score_intervals.of_area(area, size, size)
    assert 0 <= low <= area <= high <= 1
    for end in {low, high} - {0.0, 1.0}:
        assert (area - end) ** 2 == pytest.approx(Z2 * hanley_mcneil(end, size, size), abs=1e-9)


def test_perfect_areas_of_fewer_patients_are_less_sure():
    lows = [score_intervals.of_area(1.0, n, m)[0] for n, m in ((1, 9), (3, 7), (5, 5), (50, 50))]
    assert lows == sorted(lows)
    assert lows[0] > 0
    assert lows[-1] > 0.95
    assert score_intervals.of_area(1.0, 3, 17) == pytest.approx(
        tuple(1 - end for end in reversed(score_intervals.of_area(0.0, 17, 3)))
    )


def test_perfect_areas_hold_the_true_one():
    """Of scores that part the classes well, a sample often parts them perfectly."""
    rng, truth, held, perfect = np.random.default_rng(0), norm.cdf(3 / np.sqrt(2)), 0, 0
    for _ in range(400):
        positive, negative = rng.normal(3, 1, 12), rng.normal(0, 1, 12)
        if positive.min() > negative.max():
            perfect += 1
            held += score_intervals.of_area(1.0, 12, 12)[0] <= truth
    assert perfect > 40
    assert held == perfect


def test_a_mean_share_of_one_class_is_that_share():
    expected = score_intervals.of_share(1.0, 12)
    assert score_intervals.of_mean_share([1.0], [12]) == pytest.approx(expected)
    low, high = score_intervals.of_mean_share([1.0, 0.0], [10, 30])
    assert 0 < low < 0.5 < high < 1


@pytest.mark.parametrize("classes", [2, 3])
def test_a_perfect_test_set_has_intervals(classes):
    labels = np.arange(24) % classes
    probabilities = 0.8 * np.eye(classes)[labels] + 0.2 / classes
    found = metrics_with_intervals(probabilities, labels, resamples=50, seed=0)
    for name in ("accuracy", "balanced_accuracy", "f1_macro", "auc"):
        assert found[name]["value"] == found[name]["high"] == pytest.approx(1)
        assert 0.4 < found[name]["low"] < 0.95
    expected = binomtest(24, 24).proportion_ci(method="wilson")
    assert found["accuracy"]["low"] == pytest.approx(expected.low)


def test_a_model_that_always_says_the_same_has_intervals():
    labels = np.arange(40) % 2
    probabilities = np.tile([0.6, 0.4], (40, 1))
    found = metrics_with_intervals(probabilities, labels, resamples=50, seed=0)
    for name in ("balanced_accuracy", "auc"):
        assert found[name]["low"] < found[name]["value"] == 0.5 < found[name]["high"]


def test_predicting_patients_again_makes_no_interval_smaller(made):
    label = np.arange(10) % 2
    once = made(label, label)
    thrice = made(
        np.tile(label, 3), np.tile(label, 3), patient=np.tile(np.arange(10), 3),
        run=np.repeat([0, 1, 2], 10),
    )  # fmt: skip
    weights = patient_weights(10, 40)
    a, b = estimates(once, weights), estimates(thrice, weights)
    for name in a:
        assert (a[name].low, a[name].high) == (b[name].low, b[name].high)
