"""Paired comparisons against hand computations and scipy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import log_loss, roc_auc_score

from gimp_fast.evaluation.comparison import (
    METRICS,
    McNemar,
    compare,
    compare_all,
    holm,
    mcnemar_exact,
)
from gimp_fast.evaluation.intervals import cluster_weights, patient_weights


@pytest.mark.parametrize(
    ("first", "second", "p"), [(0, 0, 1.0), (1, 1, 1.0), (5, 0, 0.0625), (9, 2, 0.0654296875)]
)
def test_mcnemar_by_hand(first, second, p):
    assert mcnemar_exact(first, second) == pytest.approx(p)
    assert mcnemar_exact(second, first) == pytest.approx(p)


def test_mcnemar_is_the_sign_test_over_all_outcomes():
    n, heads = 7, 1
    outcomes = [sum(tosses) for tosses in product((0, 1), repeat=n)]
    extreme = np.mean([min(k, n - k) <= heads for k in outcomes])
    assert mcnemar_exact(heads, n - heads) == pytest.approx(extreme)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_compare_counts_what_only_one_of_them_got_right(made):
    label = np.zeros(20, int)
    row, reference = np.zeros(20, int), np.zeros(20, int)
    row[:6], reference[5:7] = 1, 1  # wrong: six of the row, two of the reference, one of both
    weights = patient_weights(20, 2000)
    found = compare(
        made(label, row, probabilities=np.eye(2)[row]),
        made(label, reference, probabilities=np.eye(2)[reference]),
        weights,
    ).accuracy
    assert found.value == pytest.approx(-4 / 20)
    p = pytest.approx(stats.binomtest(1, 6).pvalue)
    assert found.mcnemar == McNemar(1, 5, p, p)
    assert found.low < found.value < found.high
    assert found.patients == 20
    # Resampled differences have the standard error of paired shares.
    error = np.std(np.r_[np.full(5, -1), 1, np.zeros(14)]) / np.sqrt(20)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_equal_rows_do_not_differ(drawn):
    same = drawn(2)
    equal = compare(same, same, patient_weights(len(same), 200))
    for other in (equal.auc, equal.cross_entropy):
        assert (other.value, other.low, other.high, other.p) == (0, 0, 0, 1)
    found = equal.accuracy
    assert (found.value, found.p) == (0, 1)
    # Tango's interval for no difference in 60 patients: ± z² / (n + z²).
    assert (found.low, found.high) == pytest.approx((-3.8415 / 63.8415, 3.8415 / 63.8415), abs=1e-5)
    assert found.mcnemar == McNemar(0, 0, 1.0, 1.0)


def test_a_clear_difference_has_the_smallest_p_there_is(made):
    label = np.zeros(40, int)
    worse = made(label, np.ones(40, int), probabilities=np.tile([0.0, 1.0], (40, 1)))
    better = made(label, label, probabilities=np.tile([1.0, 0.0], (40, 1)))
    compared = compare(worse, better, patient_weights(40, 999))
    assert compared.auc is None  # of a single class
    assert compared.cross_entropy.p == pytest.approx(2 / 1000)
    found = compared.accuracy
    assert found.p == pytest.approx(2 / 1000)
    assert found.low == -1
    assert -0.9 < found.high < -0.8  # one patient in six could still be another


def test_seeds_are_averaged_and_patients_matched(made):
    """The row has one prediction of a patient, the reference two, and one has no partner."""
    row = made([0, 0, 0], [0, 1, 0], patient=[0, 1, 2])
    reference = made([0, 0, 0, 0], [0, 1, 0, 0], patient=[0, 0, 1, 1], run=[0, 1, 0, 1])
    found = compare(row, reference, patient_weights(4, 100)).accuracy
    assert found.value == pytest.approx(((1 - 0.5) + (0 - 1)) / 2)
    assert found.patients == 2
    assert found.mcnemar is None
    nobody = made([0], [0], probabilities=np.array([[1.0, 0.0]]), patient=[3])
    assert compare(nobody, reference, np.ones((2, 4))) is None


def test_patients_of_several_folds_have_no_exact_test(made):
    twice = made([0, 0], [0, 1], patient=[0, 0], split=[0, 1])
    assert compare(twice, twice, np.ones((3, 1))).accuracy.mcnemar is None


def test_p_values_are_corrected_for_the_number_of_models(made):
    label = np.arange(20) % 2
    reference = made(label, probabilities=np.eye(2)[label])
    models = {"alien": made([0], probabilities=np.array([[1.0, 0.0]]), patient=[20])}
    for key, errors in (("worse", 6), ("similar", 1)):
        called = np.where(np.arange(20) < errors, 1 - label, label)
        models[key] = made(label, called, probabilities=np.eye(2)[called])
    weights = patient_weights(21, 500)
    found = compare_all(models | {"reference": reference}, "reference", weights)
    assert list(found) == ["worse", "similar"]
    for metric in METRICS:
        plain = [getattr(compare(models[key], reference, weights), metric) for key in found]
        tests = [getattr(comparison, metric) for comparison in found.values()]
        assert [test.p for test in tests] == [test.p for test in plain]
        assert [test.p_holm for test in tests] == holm([test.p for test in plain])
    worse = found["worse"].accuracy
    assert worse.best_p == worse.mcnemar.p_holm == 2 * worse.mcnemar.p
    assert found["worse"].auc.mcnemar is None
    assert compare_all(models, "reference", weights) == {}


def test_areas_and_losses_are_compared_on_the_same_patients_and_folds(drawn, made):
    model, reference = drawn(2, seed=1), drawn(2, seed=1)
    worse = np.random.default_rng(2).permutation(reference.probabilities)
    reference = made(reference.label, probabilities=worse)
    weights = patient_weights(len(model), 400)
    found = compare(model, reference, weights)
    areas = [roc_auc_score(p.label, p.probabilities[:, 1]) for p in (model, reference)]
    assert found.auc.value == pytest.approx(areas[0] - areas[1])
    assert found.auc.low < found.auc.value < found.auc.high
    losses = [log_loss(p.label, p.probabilities) for p in (model, reference)]
    assert found.cross_entropy.value == pytest.approx(losses[0] - losses[1], abs=1e-3)
    assert found.cross_entropy.value < 0 < found.auc.value
    # Predictions of a fold that only one of them has do not count.
    split = np.r_[np.zeros(60, int), np.ones(60, int)]
    twice = made(
        np.tile(model.label, 2), probabilities=np.vstack([model.probabilities, worse]),
        patient=np.tile(np.arange(60), 2), split=split, run=split,
    )  # fmt: skip
    again = compare(twice, reference, weights)
    assert (again.auc.value, again.auc.p) == (found.auc.value, found.auc.p)
    assert again.cross_entropy.value == pytest.approx(found.cross_entropy.value)


def test_hospitals_are_drawn_with_all_their_patients():
    hospital = np.array([0, 1, 1, 2, 0])
    weights = cluster_weights(hospital, 500, seed=3)
    assert weights.shape == (500, 5)
    assert np.array_equal(weights[:, 0], weights[:, 4])
    assert np.array_equal(weights[:, 1], weights[:, 2])
    assert set(weights[:, [0, 1, 3]].sum(1)) == {3}  # as many as there are
    assert np.array_equal(weights, cluster_weights(hospital, 500, seed=3))


def test_patients_of_a_hospital_that_err_together_widen_the_interval(made):
    label, hospital = np.zeros(60, int), np.repeat(np.arange(6), 10)
    called = (hospital == 0).astype(int)  # all at one hospital are wrong
    right, wrong = (made(label, c, probabilities=np.eye(2)[c]) for c in (label, called))
    by_patient = compare_all({"a": wrong, "b": right}, "b", patient_weights(60, 4000))["a"]
    by_hospital = compare_all(
        {"a": wrong, "b": right}, "b", cluster_weights(hospital, 4000), units_are_patients=False
    )["a"]
    assert by_patient.accuracy.value == by_hospital.accuracy.value == pytest.approx(-1 / 6)
    widths = [found.accuracy.high - found.accuracy.low for found in (by_patient, by_hospital)]
    assert widths[1] > 2 * widths[0]
    assert by_patient.accuracy.mcnemar is not None
    assert by_hospital.accuracy.mcnemar is None
