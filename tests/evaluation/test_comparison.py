"""Paired comparisons against hand computations and scipy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from gimp_fast.evaluation.comparison import McNemar, compare, compare_all, holm, mcnemar_exact
from gimp_fast.evaluation.intervals import patient_weights


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
    )
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
    found = compare(same, same, patient_weights(len(same), 200))
    assert (found.value, found.p) == (0, 1)
    # Tango's interval for no difference in 60 patients: ± z² / (n + z²).
    assert (found.low, found.high) == pytest.approx((-3.8415 / 63.8415, 3.8415 / 63.8415), abs=1e-5)
    assert found.mcnemar == McNemar(0, 0, 1.0, 1.0)


def test_a_clear_difference_has_the_smallest_p_there_is(made):
    label = np.zeros(40, int)
    worse = made(label, np.ones(40, int), probabilities=np.tile([0.0, 1.0], (40, 1)))
    better = made(label, label, probabilities=np.tile([1.0, 0.0], (40, 1)))
    found = compare(worse, better, patient_weights(40, 999))
    assert found.p == pytest.approx(2 / 1000)
    assert found.low == -1
    assert -0.9 < found.high < -0.8  # one patient in six could still be another


def test_seeds_are_averaged_and_patients_matched(made):
    """The row has one prediction of a patient, the reference two, and one has no partner."""
    row = made([0, 0, 0], [0, 1, 0], patient=[0, 1, 2])
    reference = made([0, 0, 0, 0], [0, 1, 0, 0], patient=[0, 0, 1, 1], run=[0, 1, 0, 1])
    found = compare(row, reference, patient_weights(4, 100))
    assert found.value == pytest.approx(((1 - 0.5) + (0 - 1)) / 2)
    assert found.patients == 2
    assert found.mcnemar is None
    nobody = made([0], [0], probabilities=np.array([[1.0, 0.0]]), patient=[3])
    assert compare(nobody, reference, np.ones((2, 4))) is None


def test_patients_of_several_folds_have_no_exact_test(made):
    twice = made([0, 0], [0, 1], patient=[0, 0], split=[0, 1])
    assert compare(twice, twice, np.ones((3, 1))).mcnemar is None


def test_p_values_are_corrected_for_the_number_of_models(made):
    label = np.zeros(20, int)
    reference = made(label, probabilities=np.eye(2)[label])
    models = {"alien": made([0], probabilities=np.array([[1.0, 0.0]]), patient=[20])}
    for key, errors in (("worse", 6), ("similar", 1)):
        called = (np.arange(20) < errors).astype(int)
        models[key] = made(label, called, probabilities=np.eye(2)[called])
    weights = patient_weights(21, 500)
    found = compare_all(models | {"reference": reference}, "reference", weights)
    assert list(found) == ["worse", "similar"]
    for pick in (lambda difference: difference, lambda difference: difference.mcnemar):
        plain = [pick(compare(models[key], reference, weights)).p for key in found]
        assert [pick(difference).p for difference in found.values()] == plain
        assert [pick(difference).p_holm for difference in found.values()] == holm(plain)
    assert found["worse"].best_p == found["worse"].mcnemar.p_holm == 2 * found["worse"].mcnemar.p
    assert compare_all(models, "reference", weights) == {}
