"""Calibration against hand-made numbers."""

from __future__ import annotations

import numpy as np
import pytest

from gimp_fast.report.calibration import binned, brier_score


def test_bins_hold_each_case_once_and_their_means():
    confidence = np.array([0.5, 0.55, 0.6, 0.61, 0.95, 1.0])
    right = np.array([True, False, True, True, True, False])
    bins = binned(confidence, right)
    assert bins.count.tolist() == [1, 2, 1, 2]
    np.testing.assert_allclose(bins.confidence, [0.5, 0.575, 0.61, 0.975])
    np.testing.assert_allclose(bins.share, [1, 0.5, 1, 0.5])
    expected = (0.5 + 2 * 0.075 + 0.39 + 2 * 0.475) / 6
    assert bins.expected_error() == pytest.approx(expected)


def test_confidence_that_is_kept_has_no_error():
    confidence = np.repeat([0.75, 0.5], 400)
    right = np.concatenate([np.arange(400) % 4 > 0, np.arange(400) % 2 > 0])
    assert binned(confidence, right).expected_error() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(10, 10, 0.7225, 1.0), (0, 4, 0.0, 0.4899), (8, 10, 0.4902, 0.9433)],
)
def test_wilson_intervals(right, total, low, high):
    bins = binned(np.full(total, 0.9), np.arange(total) < right)
    np.testing.assert_allclose(bins.wilson()[:, 0], [low, high], atol=1e-4)


def test_brier_scores():
    truth = np.array([0, 1])
    two = np.array([[0.8, 0.2], [0.4, 0.6]])
    assert brier_score(two, truth) == pytest.approx((0.04 + 0.16) / 2)
    three = np.array([[1.0, 0, 0], [1.0, 0, 0]])
    assert brier_score(three, truth) == pytest.approx((0 + 2) / 2)
