"""Curves by hand, the log-rank test beside scipy, calibration groups, refused outcomes."""

from __future__ import annotations

import numpy as np
import pytest
from builders.outcomes import of_every_kind, random_outcomes
from scipy import stats

from gimp_fast.evaluation.kaplan_meier import (
    Outcomes,
    calibration,
    censoring_distribution,
    kaplan_meier,
    logrank,
)

SIX = Outcomes(np.array([1.0, 2, 2, 2, 5, 5]), np.array([0, 1, 1, 0, 1, 0], bool))
# Steps at 1, 2 and 5; the last patient is censored at 5.


def test_curve_by_hand():
    curve = kaplan_meier(SIX)
    assert curve.times.tolist() == [1, 2, 5]
    assert curve.survival == pytest.approx([1, 3 / 5, 3 / 5 * 1 / 2])
    assert curve.at_risk.tolist() == [6, 5, 2]
    assert curve.events.tolist() == [0, 2, 1]
    assert curve.censored.tolist() == [1, 1, 1]
    assert curve.at([0.5, 1, 1.9, 2, 5]) == pytest.approx([1, 1, 1, 0.6, 0.3])
    assert curve.at_risk_at([0.5, 1, 1.5, 2, 2.5, 5, 6]).tolist() == [6, 6, 5, 5, 2, 2, 0]


def test_interval_by_hand():
    low, high = kaplan_meier(SIX).interval()
    error = np.sqrt(2 / (5 * 3)) / -np.log(0.6)
    z = stats.norm.ppf(0.975)
    assert low[:2] == pytest.approx([1, 0.6 ** np.exp(z * error)])
    assert high[:2] == pytest.approx([1, 0.6 ** np.exp(-z * error)])
    assert np.array(kaplan_meier(SIX).interval_at(3.0)) == pytest.approx([low[1], high[1]])


def test_censorings_come_after_events_of_the_same_time():
    curve = censoring_distribution(SIX)
    assert curve.survival == pytest.approx([5 / 6, 5 / 6 * 2 / 3, 0])
    assert curve.at_risk.tolist() == [6, 3, 1]
    assert curve.events.tolist() == [1, 1, 1]


def test_a_curve_is_unknown_after_its_last_patient_unless_it_is_zero():
    assert np.isnan(kaplan_meier(SIX).at([5.1, 9])).all()
    assert np.isnan(kaplan_meier(SIX).interval_at([5.1])).all()
    assert censoring_distribution(SIX).at(5.1) == 0
    everyone = Outcomes(np.array([1.0, 2, 3]), np.ones(3, bool))
    assert kaplan_meier(everyone).at(9) == 0
    assert kaplan_meier(everyone).interval_at(9) == (0, 0)
    assert censoring_distribution(everyone).survival.tolist() == [1, 1, 1]


def test_without_events_the_curve_stays_at_one():
    curve = kaplan_meier(Outcomes(np.array([1.0, 2]), np.zeros(2, bool)))
    assert curve.survival.tolist() == [1, 1]
    assert np.array(curve.interval()).tolist() == [[1, 1], [1, 1]]


def test_one_patient():
    died = Outcomes(np.array([4.0]), np.array([True]))
    assert kaplan_meier(died).survival.tolist() == [0]
    assert censoring_distribution(died).survival.tolist() == [1]


@of_every_kind
@pytest.mark.parametrize("n", [7, 50, 301])
def test_logrank_equals_scipys(kind, n):
    groups = random_outcomes(n, kind), random_outcomes(n + 4, kind, seed=1)
    theirs = stats.logrank(
        *(stats.CensoredData.right_censored(group.time, ~group.event) for group in groups)
    )
    assert logrank(*groups) == pytest.approx(theirs.pvalue, rel=1e-10)


def test_logrank_leaves_out_groups_that_nobody_of_is_left_in():
    two = random_outcomes(20), random_outcomes(20, seed=1)
    gone = Outcomes(np.full(5, 0.01), np.zeros(5, bool))
    assert logrank(*two, gone) == pytest.approx(logrank(*two), rel=1e-12)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (([1.0, 2.0], [False, False]), ([3.0], [False])),
        (([1.0, 2.0], [False, False]), ([3.0], [True])),
        (([3.0], [True]), ([3.0], [True])),
    ],
    ids=["no-event", "after-the-first-group-left", "everyone-at-once"],
)
def test_logrank_refuses_groups_that_no_event_tells_apart(first, second):
    groups = [Outcomes(np.array(time), np.array(event)) for time, event in (first, second)]
    with pytest.raises(ValueError, match="needs an event while patients of two groups"):
        logrank(*groups)


def test_calibration_by_hand():
    predicted = np.array([0.9, 0.2, 0.4, 0.7, 0.1, 0.8])
    found = calibration(SIX, predicted, 2, bins=2)  # patients 4, 1, 2 and then 3, 5, 0
    assert found.predicted == pytest.approx([0.7 / 3, 0.8])
    assert found.observed == pytest.approx([1 / 3, 1])
    assert found.count.tolist() == [3, 3]
    low, high = kaplan_meier(SIX.chosen(np.array([4, 1, 2]))).interval()
    assert (found.low[0], found.high[0]) == (low[0], high[0])
    assert (found.low[1], found.high[1]) == (1, 1)


def test_calibration_does_not_invent_what_comes_after_the_last_patient_of_a_group():
    found = calibration(SIX, np.array([0.1, 0.2, 0.3, 0.7, 0.8, 0.9]), 3, bins=20)
    assert found.count.tolist() == [1] * 6
    # Censored at 1, events at 2 and 2, censored at 2, and two who are followed longer.
    assert found.observed == pytest.approx([np.nan, 0, 0, np.nan, 1, 1], nan_ok=True)
    assert np.isnan(found.low).tolist() == np.isnan(found.observed).tolist()


@pytest.mark.parametrize("wrong", [np.full(5, 0.5), np.full(6, 1.5), np.full(6, np.nan)])
def test_calibration_refuses_what_is_no_survival(wrong):
    with pytest.raises(ValueError, match="must be 6 numbers from 0 to 1"):
        calibration(SIX, wrong, 2, bins=2)


@pytest.mark.parametrize(
    ("time", "event", "message"),
    [
        ([], [], "no patients"),
        ([1.0, 2.0], [True], "one length"),
        ([[1.0]], [[True]], "one length"),
        ([1.0, 0.0], [True, True], "row 1 has 0.0"),
        ([-1.0], [True], "row 0 has -1.0"),
        ([np.nan], [True], "row 0 has nan"),
        ([np.inf], [False], "row 0 has inf"),
        ([1.0], [1], "must be bool, not int64"),
    ],
)
def test_refused_outcomes(time, event, message):
    event = np.array(event, bool) if event == [] else np.array(event)
    with pytest.raises(ValueError, match=message):
        Outcomes(np.array(time), event)


def test_outcomes_take_whole_days():
    outcomes = Outcomes(np.array([3, 5], np.int32), np.array([True, False]))
    assert outcomes.time.dtype == np.float64
    assert len(outcomes) == 2
    assert outcomes.chosen(np.array([1, 1])).time.tolist() == [5, 5]
