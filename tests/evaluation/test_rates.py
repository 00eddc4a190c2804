"""Metrics against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from gimp_fast.evaluation.rates import cross_entropy, metrics_with_intervals, rates


def predictions(classes, n=60, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    scores = rng.normal(size=(n, classes)) + 1.2 * np.eye(classes)[labels]
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    return probabilities.astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_rates_are_scikit_learns(classes):
    probabilities, labels = predictions(classes)
    predicted = probabilities.argmax(1)
    found = rates(probabilities, labels)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    expected = sk.balanced_accuracy_score(labels, predicted)
    assert found["balanced_accuracy"] == pytest.approx(expected)
    expected = sk.f1_score(labels, predicted, average="macro")
    assert found["f1_macro"] == pytest.approx(expected)
    assert 0.5 < found["auc"] < 1


def test_a_missing_class_leaves_no_auc():
    probabilities, _ = predictions(3, n=6)
    found = metrics_with_intervals(probabilities, np.zeros(6, int), resamples=20, seed=0)
    assert found["auc"] is None
    assert 0 <= found["balanced_accuracy"]["value"] <= 1


def test_intervals_hold_the_value_and_repeat():
    probabilities, labels = predictions(2)
    a, b = (metrics_with_intervals(probabilities, labels, resamples=200, seed=4) for _ in range(2))
    assert a == b
    for name in ("accuracy", "balanced_accuracy", "f1_macro", "auc"):
        assert a[name]["low"] < a[name]["value"] < a[name]["high"]
    accuracy = a["accuracy"]
    assert accuracy["k"] == (probabilities.argmax(1) == labels).sum()
    assert accuracy["value"] == accuracy["k"] / accuracy["n"]


def test_cross_entropy_of_a_wrong_certainty_is_finite():
    assert cross_entropy(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(27.63, abs=0.01)
