"""The arithmetic of curves: predictions by hand, mixed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from gimp_fast.evaluation.intervals import cluster_weights, patient_weights
from gimp_fast.evaluation.rates import rates
from gimp_fast.external.missing import curves_of
from gimp_fast.external.missing_curves import (
    SHARES,
    Answers,
    Draws,
    best_of,
    curve,
    lacking,
    paired_difference,
)
from gimp_fast.external.of_classes import Classes
from gimp_fast.external.of_numbers import Numbers
from gimp_fast.external.of_survival import TimeToEvent

KIND = Classes(("A", "B"))


def said(labels: np.ndarray, sure: float = 0.9) -> np.ndarray:
    """(n, 2) probabilities of these classes."""
    return np.where(labels[:, None] == np.arange(2), sure, 1 - sure)


def draws_of(patients: int, draws: int = 4, resamples: int = 40) -> Draws:
    return Draws.of(patient_weights(patients, resamples, 1), draws, 5)


def values(found: list) -> list[float]:
    return [drawn.estimate.value for drawn in found]


@pytest.mark.parametrize("patients", [2, 7, 40])
def test_accuracy_falls_with_every_patient_who_lacks_it(patients):
    truth = np.arange(patients) % 2
    found = curve(KIND, Answers(said(truth), said(1 - truth)), truth, draws_of(patients))
    expected = [1 - lacking(share, patients) / patients for share in SHARES]
    assert values(found["accuracy"]) == pytest.approx(expected)
    assert expected[0] == 1
    assert expected[-1] == 0


def test_shares_are_rounded_half_up():
    assert [lacking(share, 7) for share in SHARES] == [0, 1, 2, 4, 5, 6, 7]
    assert lacking(0.5, 5) == 3


def test_the_ends_are_the_scores_with_and_without():
    rng = np.random.default_rng(0)
    truth = np.arange(31) % 2
    shown, hidden = (said(truth, 0.5) + np.outer(rng.normal(size=31), [-0.1, 0.1]) for _ in "ab")
    draws = draws_of(31)
    found = curve(KIND, Answers(shown, hidden), truth, draws)
    for place, predicted in ((0, shown), (-1, hidden)):
        expected = rates(predicted, truth)
        for name in ("accuracy", "auc"):
            assert found[name][place].estimate.value == pytest.approx(expected[name])
            one = found[name][place].draws
            assert np.isfinite(one).all()
            assert len(one) == 40


def test_the_score_is_the_mean_over_orders_who_lose_one_after_the_other():
    truth, orders = np.array([0, 1, 0, 1]), np.array([[0, 1, 2, 3], [3, 2, 1, 0]])
    hidden = said(np.array([1, 0, 0, 1]))  # wrong of the first two
    draws = Draws(patient_weights(4, 10, 0), orders)
    found = values(curve(KIND, Answers(said(truth), hidden), truth, draws)["accuracy"])
    # At a half, the first order loses both who are then wrong, the second none of them.
    assert found[SHARES.index(0.5)] == pytest.approx((0.5 + 1.0) / 2)
    assert found[SHARES.index(0.75)] == pytest.approx((0.5 + 0.75) / 2)
    assert found[-1] == pytest.approx(0.5)


def test_intervals_are_of_patients_and_of_who_lacks_it():
    truth = np.arange(40) % 2
    answers = Answers(said(truth), said(1 - truth))
    certain = Draws(np.ones((60, 40)), draws_of(40, draws=6).orders)
    half = SHARES.index(0.5)
    accuracy = curve(KIND, answers, truth, certain)["accuracy"][half].estimate
    auc = curve(KIND, answers, truth, certain)["auc"][half].estimate
    assert accuracy.value == 0.5  # whoever they are, it is half of them
    assert auc.low < auc.high  # but how many of a class they are is drawn
    hospitals = Draws(cluster_weights(np.arange(40) // 8, 60, 1), certain.orders)
    wide = curve(KIND, answers, truth, hospitals)["accuracy"][half].estimate
    assert wide.low < 0.5 < wide.high


def test_fewer_resamples_than_orders():
    truth = np.arange(6) % 2
    draws = draws_of(6, draws=8, resamples=3)
    found = curve(KIND, Answers(said(truth), said(1 - truth)), truth, draws)["accuracy"]
    assert values(found) == pytest.approx([1 - lacking(share, 6) / 6 for share in SHARES])


def test_survival_without_an_answer_is_all_ties():
    time = np.arange(1.0, 12.0)
    truth = np.stack([time, np.ones(11)], axis=1)
    kind = TimeToEvent((5.0,), "days")
    shown = np.stack([-time, np.full(11, 0.5)], axis=1)
    found = curve(kind, Answers(shown, np.full((11, 2), 0.5)), truth, draws_of(11))
    assert list(found) == ["c_index"]
    score = values(found["c_index"])
    assert score[0] == 1
    assert score[-1] == 0.5  # a tie counts as half


def test_numbers():
    truth = np.arange(8.0)
    found = curve(Numbers(), Answers(truth[:, None], truth[:, None] + 2), truth, draws_of(8))
    expected = [2 * lacking(share, 8) / 8 for share in SHARES]
    assert values(found["mean_absolute_error"]) == pytest.approx(expected)


def test_a_score_that_is_not_defined_is_none():
    truth = np.zeros(6, int)
    found = curve(KIND, Answers(said(truth), said(truth)), truth, draws_of(6))
    assert found["auc"] == [None] * len(SHARES)
    assert values(found["accuracy"]) == [1] * len(SHARES)


def test_equal_answers_differ_by_nothing():
    truth = np.arange(20) % 2
    rng = np.random.default_rng(2)
    answers = Answers(*(rng.dirichlet([1, 1], size=20) for _ in "ab"))
    draws = draws_of(20)
    one, other = (curve(KIND, answers, truth, draws)["auc"] for _ in "ab")
    for pair in zip(one, other, strict=True):
        difference = paired_difference(*pair)
        assert (difference.low, difference.value, difference.high) == (0, 0, 0)
    assert paired_difference(one[0], None) is None


def test_the_best_is_the_largest_or_the_least():
    truth = np.arange(8.0)
    near, far = (
        curve(Numbers(), Answers(*[truth[:, None] + by] * 2), truth, draws_of(8)) for by in (1, 3)
    )
    name = "mean_absolute_error"
    curves = {"near": near[name], "far": far[name]}
    assert best_of(curves, 0, less_is_better=True)[0] == "near"
    assert best_of(curves, 0, less_is_better=False)[0] == "far"
    assert best_of({"none": [None] * 7}, 0, less_is_better=False) == ("", None)


def compared(fused: Answers, single: dict[str, np.ndarray], truth: np.ndarray, lacks="rna"):
    found = curves_of(KIND, lacks, fused, single, truth, draws_of(len(truth)))
    return {curve.score: curve for curve in found}


def test_who_still_has_it_is_answered_by_the_model_of_it():
    truth = np.arange(20) % 2
    wrong = np.where(np.arange(20) < 8, 1 - truth, truth)
    single = {"rna": said(truth), "slide": said(wrong)}
    found = compared(Answers(said(truth), said(wrong)), single, truth)["accuracy"]
    assert found.points[0].reference_is == "either"
    assert found.points[0].reference.value == 1
    assert found.points[-1].reference.value == pytest.approx(0.6)
    assert [point.difference.value for point in found.points] == pytest.approx([0] * len(SHARES))
    assert found.falls_below is False
    # Of the other direction, it is RNA that remains, which is better for everybody.
    other = compared(Answers(said(truth), said(truth)), single, truth, "slide")["accuracy"]
    assert {point.reference_is for point in other.points} == {"rna"}


def test_what_is_lost_beyond_the_tolerance_is_said():
    truth = np.arange(20) % 2
    one_wrong = np.where(np.arange(20) < 1, 1 - truth, truth)
    found = compared(Answers(said(truth), said(one_wrong)), {"slide": said(truth)}, truth)
    accuracy = found["accuracy"]
    assert accuracy.tolerance == 0.005
    assert accuracy.points[0].difference.value == 0
    assert accuracy.worst.difference.value == pytest.approx(-0.05)
    assert accuracy.falls_below
    # A larger cross-entropy is a loss too, but nobody said how large it may be.
    entropy = found["cross_entropy"]
    assert entropy.worst.difference.value > 0
    assert entropy.falls_below is None


def test_without_a_model_of_what_remains_nothing_is_compared():
    truth = np.arange(10) % 2
    found = compared(Answers(said(truth), said(truth)), {"rna": said(truth)}, truth)
    assert {curve.worst for curve in found.values()} == {None}
    assert found["auc"].falls_below is None
