"""Metrics against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from gimp_fast.evaluation.intervals import Estimate, Spread, estimate, patient_weights, spread
from gimp_fast.evaluation.rates import (
    Predictions,
    auc,
    cross_entropy,
    mean_roc,
    metrics_with_intervals,
    rates,
    weighted_rates,
)


def interval(draws):
    found = estimate(0.0, draws)
    return found.low, found.high


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
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted))
    expected = metrics.balanced_accuracy_score(labels, predicted)
    assert found["balanced_accuracy"] == pytest.approx(expected)
    expected = metrics.f1_score(labels, predicted, average="macro")
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


def rates_by_definition(probabilities, labels):
    """Each by scikit-learn, on plain copies of the patients."""
    predicted, present = probabilities.argmax(1), np.unique(labels)
    found = {
        "accuracy": metrics.accuracy_score(labels, predicted),
        "balanced_accuracy": metrics.recall_score(
            labels, predicted, labels=present, average="macro", zero_division=0
        ),
        "f1_macro": metrics.f1_score(
            labels, predicted, labels=present, average="macro", zero_division=0
        ),
    }
    if len(present) == probabilities.shape[1]:
        scores = probabilities.astype(np.float64)
        scores = scores[:, 1] if len(present) == 2 else scores / scores.sum(1, keepdims=True)
        found["auc"] = metrics.roc_auc_score(labels, scores, multi_class="ovr")
    return found


@pytest.mark.parametrize(("classes", "n"), [(2, 13), (2, 40), (3, 30), (5, 23)])
def test_intervals_are_those_of_a_loop_over_resamples(classes, n):
    """Values for a seed stay what they were, whatever makes them faster."""
    probabilities, labels = predictions(classes, n, seed=classes)
    probabilities = np.round(probabilities, 2)  # ties
    rng = np.random.default_rng(4)
    drawn = {}
    for _ in range(300):
        rows = rng.integers(n, size=n)
        for name, value in rates_by_definition(probabilities[rows], labels[rows]).items():
            drawn.setdefault(name, []).append(value)
    found = metrics_with_intervals(probabilities, labels, resamples=300, seed=4)
    for name, value in rates_by_definition(probabilities, labels).items():
        low, high = np.percentile(drawn[name], [2.5, 97.5])
        expected = [value, low, high]
        actual = [found[name][key] for key in ("value", "low", "high")]
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)
    assert found["n"] == n


def test_the_mean_roc_curve_has_the_area():
    probabilities, labels = predictions(2)
    one = Predictions.of_one_model(probabilities, labels)
    grid = np.linspace(0, 1, 20001)
    area = np.trapezoid(mean_roc(one, grid), grid)
    assert area == pytest.approx(rates(probabilities, labels)["auc"], abs=1e-3)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_weighted_rates_are_those_of_scikit_learn(classes, drawn):
    found = drawn(classes)
    values = weighted_rates(found, np.ones((1, len(found))))
    truth = (found.label, found.predicted)
    assert values["accuracy"][0] == pytest.approx(metrics.accuracy_score(*truth))
    balanced = metrics.balanced_accuracy_score(*truth)
    assert values["balanced_accuracy"][0] == pytest.approx(balanced)
    assert values["f1_macro"][0] == pytest.approx(metrics.f1_score(*truth, average="macro"))


@pytest.mark.parametrize("classes", [2, 4])
def test_weights_are_copies_of_patients(classes, drawn):
    found = drawn(classes, n=50)
    weights = patient_weights(50, 3, seed=1)
    assert (weights.sum(1) == 50).all()
    for row in weights:
        copies = np.repeat(np.arange(50), row.astype(int))
        label, probabilities = found.label[copies], found.probabilities[copies]
        values = weighted_rates(found, row[None])
        assert values["accuracy"][0] == pytest.approx((probabilities.argmax(1) == label).mean())
        area = auc(found, row[None])[0]
        each = [
            metrics.roc_auc_score(label == positive, probabilities[:, positive])
            for positive in range(classes)
        ]
        assert area == pytest.approx(np.mean(each))


def test_a_class_that_was_not_drawn_has_no_area_and_no_recall(made):
    found = made([0, 0, 1], probabilities=np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]))
    weights = np.array([[2.0, 1.0, 0.0]])
    assert np.isnan(auc(found, weights)[0])
    assert weighted_rates(found, weights)["balanced_accuracy"][0] == 1.0
    assert estimate(0.4, np.array([np.nan, 0.5, np.nan])) == Estimate(0.4, 0.5, 0.5)
    assert estimate(0.4, np.array([np.nan])) is None
    assert estimate(np.nan, np.array([0.5])) is None


def test_area_is_the_mean_over_runs_that_have_every_class(made):
    one = [[0.9, 0.1], [0.2, 0.8]]  # right order
    other = [[0.1, 0.9], [0.8, 0.2]]  # wrong order
    alone = [[0.5, 0.5]]
    found = made(
        [0, 1, 0, 1, 0],
        probabilities=np.array(one + other + alone),
        patient=[0, 1, 0, 1, 0],
        run=[0, 0, 1, 1, 2],
    )
    assert auc(found, np.ones((1, 2)))[0] == 0.5


def test_patients_are_resampled_with_all_their_predictions(made):
    """Two patients, one always right and one always wrong: accuracy can only be 0, ½ or 1."""
    found = made([0] * 10, [0] * 5 + [1] * 5, patient=[0] * 5 + [1] * 5, run=[*range(5)] * 2)
    weights = patient_weights(2, 400)
    accuracy = weighted_rates(found, weights)["accuracy"]
    assert set(accuracy) == {0.0, 0.5, 1.0}
    assert interval(accuracy) == (0.0, 1.0)
    # 10 independent predictions would claim much more certainty.
    apart = made([0] * 10, [0] * 5 + [1] * 5)
    low, high = interval(weighted_rates(apart, patient_weights(10, 400))["accuracy"])
    assert 0.1 < low < high < 0.9


def test_interval_of_a_share_is_near_the_normal_approximation(made):
    found = made([0] * 200, [0] * 160 + [1] * 40)
    weights = patient_weights(200, 4000)
    low, high = interval(weighted_rates(found, weights)["accuracy"])
    half = 1.96 * np.sqrt(0.8 * 0.2 / 200)
    assert (low, high) == (pytest.approx(0.8 - half, abs=0.01), pytest.approx(0.8 + half, abs=0.01))


def test_mean_and_sample_deviation():
    found = spread([0.9, 0.8, 1.0])
    assert (found.mean, found.sd) == (pytest.approx(0.9), pytest.approx(0.1))
    assert spread([0.9]) == Spread(0.9, None, (0.9,))
    assert spread([]) == Spread(None, None, ())
