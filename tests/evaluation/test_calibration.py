"""Calibration against hand computations."""

from __future__ import annotations

import numpy as np
import pytest

from gimp_fast.evaluation.calibration import brier, reliability


def test_bins_and_their_error_by_hand():
    confidence = np.array([0.6, 0.9, 0.7, 1.0])
    hits = np.array([False, True, True, True])
    # Bins of two: (0.6, 0.7) right in ½, (0.9, 1.0) right in 1.
    bins = reliability(confidence, hits, bins=2)
    np.testing.assert_allclose(bins.confidence, [0.65, 0.95])
    np.testing.assert_allclose(bins.share, [0.5, 1.0])
    assert bins.count.tolist() == [2, 2]
    assert bins.error == pytest.approx((0.15 + 0.05) / 2)
    assert reliability(confidence, hits).count.tolist() == [1, 1, 1, 1]


def test_bins_hold_each_prediction_once():
    rng = np.random.default_rng(0)
    confidence, hits = rng.uniform(0.5, 1, 103), rng.uniform(size=103) < 0.8
    bins = reliability(confidence, hits)
    assert set(bins.count.tolist()) == {10, 11}
    assert (np.diff(bins.confidence) > 0).all()
    assert np.average(bins.share, weights=bins.count) == pytest.approx(hits.mean())
    assert np.average(bins.confidence, weights=bins.count) == pytest.approx(confidence.mean())


def test_confidence_that_is_kept_has_no_error():
    confidence = np.repeat([0.75, 0.5], 400)
    hits = np.concatenate([np.arange(400) % 4 > 0, np.arange(400) % 2 > 0])
    assert reliability(confidence, hits).error == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(10, 10, 0.7225, 1.0), (0, 4, 0.0, 0.4899), (8, 10, 0.4902, 0.9433)],
)
def test_wilson_intervals(right, total, low, high):
    bins = reliability(np.full(total, 0.9), np.arange(total) < right, bins=1)
    np.testing.assert_allclose(bins.wilson()[:, 0], [low, high], atol=1e-4)


def test_brier_score():
    two = np.array([[0.8, 0.2], [0.4, 0.6]])
    assert brier(two, np.array([0, 0])) == pytest.approx((0.2**2 + 0.6**2) / 2)
    assert brier(two, np.array([0, 1])) == pytest.approx((0.2**2 + 0.4**2) / 2)
    three = np.array([[0.5, 0.3, 0.2], [1.0, 0, 0]])
    assert brier(three[:1], np.array([0])) == pytest.approx((0.25 + 0.09 + 0.04) / 2)
    assert brier(three[[1, 1]], np.array([0, 1])) == pytest.approx((0 + 1) / 2)
