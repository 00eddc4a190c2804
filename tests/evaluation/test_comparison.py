"""Every number of a table, against hand computations, scikit-learn and scipy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from gimp_fast.evaluation import comparison as statistics
from gimp_fast.evaluation.comparison import Predictions


def made(label, predicted=None, *, probabilities=None, patient=None, split=None, run=None):
    """Predictions of one patient each, by one run, unless told."""
    label = np.array(label)
    n = len(label)
    if probabilities is None:
        probabilities = np.eye(max(label.max(), np.max(predicted)) + 1)[predicted]
    predicted = probabilities.argmax(1) if predicted is None else np.array(predicted)
    patient = np.arange(n) if patient is None else np.array(patient)
    zeros = np.zeros(n, int)
    split = zeros if split is None else np.array(split)
    run = zeros if run is None else np.array(run)
    return Predictions(patient, split, run, label, predicted, np.asarray(probabilities, float))


def drawn(classes, n=60, seed=0, runs=1):
    rng = np.random.default_rng(seed)
    label = rng.integers(classes, size=n)
    scores = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[label]
    probabilities = np.round(np.exp(scores) / np.exp(scores).sum(1, keepdims=True), 2)  # ties
    return made(label, probabilities=probabilities, run=np.arange(n) % runs)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_rates_are_those_of_scikit_learn(classes):
    found = drawn(classes)
    rates = statistics.rates(found, np.ones((1, len(found))))
    truth = (found.label, found.predicted)
    assert rates["accuracy"][0] == pytest.approx(metrics.accuracy_score(*truth))
    balanced = metrics.balanced_accuracy_score(*truth)
    assert rates["balanced_accuracy"][0] == pytest.approx(balanced)
    assert rates["f1_macro"][0] == pytest.approx(metrics.f1_score(*truth, average="macro"))


@pytest.mark.parametrize("classes", [2, 4])
def test_weights_are_copies_of_patients(classes):
    found = drawn(classes, n=50)
    weights = statistics.patient_weights(50, 3, seed=1)
    assert (weights.sum(1) == 50).all()
    for row in weights:
        copies = np.repeat(np.arange(50), row.astype(int))
        label, probabilities = found.label[copies], found.probabilities[copies]
        rates = statistics.rates(found, row[None])
        assert rates["accuracy"][0] == pytest.approx((probabilities.argmax(1) == label).mean())
        area = statistics.auc(found, row[None])[0]
        each = [
            metrics.roc_auc_score(label == positive, probabilities[:, positive])
            for positive in range(classes)
        ]
        assert area == pytest.approx(np.mean(each))


def test_a_class_that_was_not_drawn_has_no_area_and_no_recall():
    found = made([0, 0, 1], probabilities=np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]))
    weights = np.array([[2.0, 1.0, 0.0]])
    assert np.isnan(statistics.auc(found, weights)[0])
    assert statistics.rates(found, weights)["balanced_accuracy"][0] == 1.0
    assert statistics.interval(np.array([np.nan, 0.5, np.nan])) == (0.5, 0.5)
    assert np.isnan(statistics.interval(np.array([np.nan]))).all()


def test_area_is_the_mean_over_runs_that_have_every_class():
    one = [[0.9, 0.1], [0.2, 0.8]]  # right order
    other = [[0.1, 0.9], [0.8, 0.2]]  # wrong order
    alone = [[0.5, 0.5]]
    found = made(
        [0, 1, 0, 1, 0],
        probabilities=np.array(one + other + alone),
        patient=[0, 1, 0, 1, 0],
        run=[0, 0, 1, 1, 2],
    )
    assert statistics.auc(found, np.ones((1, 2)))[0] == 0.5


def test_patients_are_resampled_with_all_their_predictions():
    """Two patients, one always right and one always wrong: accuracy can only be 0, ½ or 1."""
    found = made([0] * 10, [0] * 5 + [1] * 5, patient=[0] * 5 + [1] * 5, run=[*range(5)] * 2)
    weights = statistics.patient_weights(2, 400)
    accuracy = statistics.rates(found, weights)["accuracy"]
    assert set(accuracy) == {0.0, 0.5, 1.0}
    assert statistics.interval(accuracy) == (0.0, 1.0)
    # 10 independent predictions would claim much more certainty.
    apart = made([0] * 10, [0] * 5 + [1] * 5)
    low, high = statistics.interval(
        statistics.rates(apart, statistics.patient_weights(10, 400))["accuracy"]
    )
    assert 0.1 < low < high < 0.9


def test_interval_of_a_share_is_near_the_normal_approximation():
    found = made([0] * 200, [0] * 160 + [1] * 40)
    weights = statistics.patient_weights(200, 4000)
    low, high = statistics.interval(statistics.rates(found, weights)["accuracy"])
    half = 1.96 * np.sqrt(0.8 * 0.2 / 200)
    assert (low, high) == (pytest.approx(0.8 - half, abs=0.01), pytest.approx(0.8 + half, abs=0.01))


def test_mean_and_sample_deviation():
    assert statistics.mean_sd([0.9, 0.8, 1.0]) == (pytest.approx(0.9), pytest.approx(0.1))
    assert statistics.mean_sd([0.9]) == (0.9, None)


def test_brier_score_of_two_classes_is_the_usual_one():
    probabilities, labels = np.array([[0.8, 0.2], [0.4, 0.6]]), np.array([0, 0])
    assert statistics.brier(probabilities, labels) == pytest.approx((0.2**2 + 0.6**2) / 2)
    three = np.array([[0.5, 0.3, 0.2]])
    assert statistics.brier(three, np.array([0])) == pytest.approx((0.25 + 0.09 + 0.04) / 2)


def test_calibration_error_by_hand():
    confidence = np.array([0.6, 0.9, 0.7, 1.0])
    hits = np.array([False, True, True, True])
    # Bins of two: (0.6, 0.7) right in ½, (0.9, 1.0) right in 1.
    said, right, sizes = statistics.reliability(confidence, hits, bins=2)
    np.testing.assert_allclose(said, [0.65, 0.95])
    np.testing.assert_allclose(right, [0.5, 1.0])
    assert sizes.tolist() == [2, 2]
    assert statistics.calibration_error(confidence, hits, bins=2) == pytest.approx(
        (0.15 + 0.05) / 2
    )
    assert len(statistics.reliability(confidence, hits, bins=10)[0]) == 4


@pytest.mark.parametrize(
    ("first", "second", "p"), [(0, 0, 1.0), (1, 1, 1.0), (5, 0, 0.0625), (9, 2, 0.0654296875)]
)
def test_mcnemar_by_hand(first, second, p):
    assert statistics.mcnemar_exact(first, second) == pytest.approx(p)
    assert statistics.mcnemar_exact(second, first) == pytest.approx(p)


def test_mcnemar_is_the_sign_test_over_all_outcomes():
    n, heads = 7, 1
    outcomes = [sum(tosses) for tosses in product((0, 1), repeat=n)]
    extreme = np.mean([min(k, n - k) <= heads for k in outcomes])
    assert statistics.mcnemar_exact(heads, n - heads) == pytest.approx(extreme)


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def test_compare_counts_what_only_one_of_them_got_right():
    label = np.zeros(20, int)
    row, reference = np.zeros(20, int), np.zeros(20, int)
    row[:6], reference[5:7] = 1, 1  # wrong: six of the row, two of the reference, one of both
    weights = statistics.patient_weights(20, 2000)
    found = statistics.compare(
        made(label, row, probabilities=np.eye(2)[row]),
        made(label, reference, probabilities=np.eye(2)[reference]),
        weights,
    )
    assert found.value == pytest.approx(-4 / 20)
    assert found.mcnemar == (1, 5, pytest.approx(stats.binomtest(1, 6).pvalue))
    assert found.low < found.value < found.high
    assert found.patients == 20
    # Resampled differences have the standard error of paired shares.
    error = np.std(np.r_[np.full(5, -1), 1, np.zeros(14)]) / np.sqrt(20)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_equal_rows_do_not_differ():
    same = drawn(2)
    found = statistics.compare(same, same, statistics.patient_weights(len(same), 200))
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert found.mcnemar == (0, 0, 1.0)


def test_a_clear_difference_has_the_smallest_p_there_is():
    label = np.zeros(40, int)
    worse = made(label, np.ones(40, int), probabilities=np.tile([0.0, 1.0], (40, 1)))
    better = made(label, label, probabilities=np.tile([1.0, 0.0], (40, 1)))
    found = statistics.compare(worse, better, statistics.patient_weights(40, 999))
    assert found.p == pytest.approx(2 / 1000)
    assert (found.low, found.high) == (-1, -1)


def test_seeds_are_averaged_and_patients_matched():
    """The row has one prediction of a patient, the reference two, and one has no partner."""
    row = made([0, 0, 0], [0, 1, 0], patient=[0, 1, 2])
    reference = made([0, 0, 0, 0], [0, 1, 0, 0], patient=[0, 0, 1, 1], run=[0, 1, 0, 1])
    found = statistics.compare(row, reference, statistics.patient_weights(4, 100))
    assert found.value == pytest.approx(((1 - 0.5) + (0 - 1)) / 2)
    assert found.patients == 2
    assert found.mcnemar is None
    nobody = made([0], [0], probabilities=np.array([[1.0, 0.0]]), patient=[3])
    assert statistics.compare(nobody, reference, np.ones((2, 4))) is None


def test_patients_of_several_folds_have_no_exact_test():
    twice = made([0, 0], [0, 1], patient=[0, 0], split=[0, 1])
    assert statistics.compare(twice, twice, np.ones((3, 1))).mcnemar is None
