"""Temperature scaling: a planted temperature, its ends, and what it must not change."""

from __future__ import annotations

import numpy as np
import pytest

from gimp_fast.evaluation.rates import cross_entropy
from gimp_fast.evaluation.temperature import at_temperature, fit_temperature


def drawn(n: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities (n, K), and labels drawn from them."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(classes, 0.7), n)
    return probabilities, (probabilities.cumsum(1) < rng.random((n, 1))).sum(1).clip(0, classes - 1)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("planted", [0.4, 1.0, 2.5])
def test_a_planted_temperature_is_found(classes, planted):
    probabilities, labels = drawn(6000, classes)
    too_sure = at_temperature(probabilities, 1 / planted)
    found = fit_temperature(too_sure, labels)
    assert found == pytest.approx(planted, rel=0.1)
    np.testing.assert_allclose(at_temperature(too_sure, planted), probabilities, atol=1e-4)


def test_no_other_temperature_has_a_lower_cross_entropy():
    probabilities, labels = drawn(37, 3, seed=1)
    best = fit_temperature(probabilities, labels)
    values = [cross_entropy(at_temperature(probabilities, best * by), labels)
              for by in (0.9, 0.999, 1.0, 1.001, 1.1)]  # fmt: skip
    assert min(values) == values[2]


def test_the_largest_class_stays_the_largest():
    probabilities, _ = drawn(200, 4)
    for temperature in (0.2, 1.0, 30.0):
        scaled = at_temperature(probabilities, temperature)
        assert (scaled.argmax(1) == probabilities.argmax(1)).all()
        np.testing.assert_allclose(scaled.sum(1), 1)


def test_probabilities_of_zero_and_one_are_scaled():
    scaled = at_temperature(np.array([[1.0, 0.0]]), 5.0)
    assert np.isfinite(scaled).all()
    assert 0.99 < scaled[0, 0] < 1


@pytest.mark.parametrize(
    ("probabilities", "labels", "why"),
    [
        (np.empty((0, 2)), np.empty(0, int), "no patient"),
        (np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1]), "the larger .* the better"),
        (np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([1, 0]), "no better than equal ones"),
        (np.full((4, 2), 0.5), np.array([0, 1, 0, 1]), "the larger|no better"),
    ],
    ids=["nobody", "all-right", "all-wrong", "all-equal"],
)
def test_no_lowest_value_is_an_error(probabilities, labels, why):
    with pytest.raises(ValueError, match=why):
        fit_temperature(probabilities, labels)
