"""Survival scores by hand, on drawn patients, and where they are not defined."""

from __future__ import annotations

import numpy as np
import pytest
from builders.outcomes import (
    followed_longer,
    horizons_of,
    or_nan,
    random_outcomes,
    random_risk,
    random_survival,
)

from gimp_fast.evaluation.intervals import patient_weights
from gimp_fast.evaluation.kaplan_meier import Outcomes, censoring_distribution
from gimp_fast.evaluation.survival import brier, dynamic_auc, harrell_c, integrated_brier, uno_c

FOUR = Outcomes(np.array([1.0, 2, 3, 4]), np.array([1, 0, 1, 0], bool))
RISK = np.array([4.0, 3, 1, 2])
G = censoring_distribution(FOUR)  # 1, from 2 on 2/3, from 4 on 0
SURVIVAL = np.array([[0.5, 0.1], [0.5, 0.2], [0.5, 0.3], [0.5, 0.8]])  # at 2 and 3
GONE = censoring_distribution(Outcomes(np.array([2.0]), np.array([False])))  # zero from 2 on
TWICE = np.full((1, 4), 2.0)


def outcomes_of(time, event):
    return Outcomes(np.array(time, float), np.array(event, bool))


def test_harrell_by_hand():
    assert harrell_c(FOUR, RISK) == pytest.approx(3 / 4)
    assert harrell_c(FOUR, RISK, TWICE) == pytest.approx([3 / 4])


@pytest.mark.parametrize(
    ("time", "event", "risk", "expected"),
    [
        ([1, 2], [1, 0], [5, 5], 0.5),
        ([1, 2], [1, 0], [5, 5 + 5e-9], 0.5),
        ([1, 2], [1, 0], [5 + 5e-9, 5], 0.5),
        ([1, 2], [1, 0], [5, 5 + 2e-8], 0),
        ([2, 2], [1, 0], [5, 3], 1),
        ([2, 2, 3], [1, 1, 0], [5, 3, 4], 0.5),
        ([1, 2, 3], [0, 1, 0], [9, 3, 4], 0),
    ],
    ids=[
        "tied", "nearly-above", "nearly-below", "not-tied", "censored-later", "both-events",
        "censored-first",
    ],
)  # fmt: skip
def test_which_pairs_are_comparable(time, event, risk, expected):
    outcomes = outcomes_of(time, event)
    assert harrell_c(outcomes, np.array(risk, float)) == pytest.approx(expected)


def test_uno_by_hand():
    # Three right pairs of the first event, and a wrong one of the third, which weighs 9/4.
    assert uno_c(FOUR, RISK, G) == pytest.approx(3 / (3 + 9 / 4))
    assert uno_c(FOUR, RISK, G, TWICE) == pytest.approx([4 / 7])
    assert uno_c(FOUR, RISK, G, tau=3) == 1  # the event at 3 is not before it


def test_areas_by_hand():
    areas, mean = dynamic_auc(FOUR, RISK, np.array([1.0, 3]), G)
    # By 3 two events, which weigh 1 and 3/2; the risk of the first alone is above that of the last.
    assert areas == pytest.approx([1, 1 / 2.5])
    # A quarter have their event by 1, and half of the remaining three quarters by 3.
    assert mean == pytest.approx((1 * 1 / 4 + 0.4 * 3 / 8) / (5 / 8))
    drawn, means = dynamic_auc(FOUR, RISK, np.array([1.0, 3]), G, TWICE)
    assert drawn == pytest.approx(areas[None])
    assert means == pytest.approx([mean])


@pytest.mark.parametrize(("gap", "area"), [(5e-9, 0.5), (-5e-9, 0.5), (2e-8, 1), (-2e-8, 0)])
def test_areas_count_nearly_equal_risks_half(gap, area):
    outcomes = outcomes_of([1, 2], [1, 0])
    assert dynamic_auc(outcomes, np.array([gap, 0]), np.array([1.0]), G)[0] == area


def test_a_horizon_can_have_its_own_risks():
    horizons = np.array([1.0, 3])
    both = np.stack([RISK, -RISK], axis=1)
    first, second = (dynamic_auc(FOUR, risk, horizons, G)[0] for risk in both.T)
    assert dynamic_auc(FOUR, both, horizons, G)[0].tolist() == [first[0], second[1]]
    assert second[1] == pytest.approx(1 - 0.4)


def test_brier_by_hand():
    # At 2: an event that weighs 1, and two later patients that weigh 3/2. At 3 one of these.
    at_2 = (0.25 + 2 * 0.25 * 1.5) / 4
    at_3 = (0.1**2 + 1.5 * 0.3**2 + 1.5 * 0.2**2) / 4
    horizons = np.array([2.0, 3])
    assert brier(FOUR, SURVIVAL, horizons, G) == pytest.approx([at_2, at_3])
    assert brier(FOUR, SURVIVAL, horizons, G, TWICE) == pytest.approx(np.array([[at_2, at_3]]))
    whole = (at_2 + at_3) / 2
    assert integrated_brier(FOUR, SURVIVAL, horizons, G) == pytest.approx(whole)
    assert integrated_brier(FOUR, SURVIVAL, horizons, G, TWICE) == pytest.approx([whole])


def test_brier_before_any_event_is_the_squared_rest():
    found = brier(FOUR, np.full((4, 1), 0.7), np.array([0.5]), G)
    assert found == pytest.approx([0.3**2])


# Of outcomes, risk, survival, horizons, G and weights.
SCORES = {
    "harrell": lambda o, r, s, t, g, w: harrell_c(o, r, w),
    "uno": lambda o, r, s, t, g, w: uno_c(o, r, g, w),
    "uno-before-tau": lambda o, r, s, t, g, w: uno_c(o, r, g, w, tau=t[-1]),
    "area": lambda o, r, s, t, g, w: dynamic_auc(o, r, t[:1], g, w)[0],
    "mean-area": lambda o, r, s, t, g, w: dynamic_auc(o, r, t, g, w)[1],
    "brier": lambda o, r, s, t, g, w: brier(o, s[:, -1:], t[-1:], g, w),
    "integrated": lambda o, r, s, t, g, w: integrated_brier(o, s, t, g, w),
}


@pytest.mark.parametrize("curve", ["known", "zero-for-some"])
@pytest.mark.parametrize("kind", ["half-censored", "mostly-censored", "tied-times"])
@pytest.mark.parametrize("n", [7, 50])
@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES.keys())
def test_weights_are_repeated_patients(score, n, kind, curve):
    """NaN for those resamples whose patients, repeated, are refused."""
    outcomes, risk = random_outcomes(n, kind), random_risk(n)
    horizons = horizons_of(outcomes)
    survival = random_survival(n, horizons)
    others = {"known": followed_longer(), "zero-for-some": early_leavers(outcomes)}[curve]
    censoring = censoring_distribution(others)
    weights = patient_weights(n, 40, seed=4)
    found = score(outcomes, risk, survival, horizons, censoring, weights)
    repeated = [np.repeat(np.arange(n), row.astype(int)) for row in weights]
    expected = [
        np.ravel(or_nan(score, outcomes.chosen(r), risk[r], survival[r], horizons, censoring, None))
        for r in repeated
    ]
    assert np.ravel(found) == pytest.approx(np.concatenate(expected), rel=1e-10, nan_ok=True)


def early_leavers(outcomes):
    """All have left when three quarters of the events are over."""
    last = np.quantile(outcomes.time[outcomes.event], 0.75, method="lower")
    return Outcomes(np.array([last / 2, last]), np.zeros(2, bool))


def test_both_kinds_of_resamples_occur():
    """Else the test above would not compare numbers, or not what is undefined."""
    outcomes, risk = random_outcomes(7), random_risk(7)
    censoring = censoring_distribution(early_leavers(outcomes))
    undefined = np.isnan(uno_c(outcomes, risk, censoring, patient_weights(7, 40, seed=4)))
    assert 0 < undefined.sum() < 40


def test_more_resamples_than_a_block():
    outcomes, risk = random_outcomes(300), random_risk(300)
    horizons, censoring = horizons_of(outcomes), censoring_distribution(followed_longer())
    weights = patient_weights(300, 600)
    areas, means = dynamic_auc(outcomes, risk, horizons, censoring, weights)
    assert areas.shape == (600, 4)
    last = dynamic_auc(outcomes, risk, horizons, censoring, weights[-1:])
    assert areas[-1] == pytest.approx(last[0][0])
    assert means[-1] == pytest.approx(last[1][0])
    everyone_event = Outcomes(outcomes.time, np.ones(300, bool))  # more than a block of rows
    late = np.argsort(np.argsort(outcomes.time))
    assert harrell_c(everyone_event, -late) == 1


def test_one_event():
    outcomes, risk = outcomes_of([2, 1, 3], [1, 0, 0]), np.array([3.0, 2, 1])
    censoring = censoring_distribution(outcomes)
    assert harrell_c(outcomes, risk) == 1
    assert uno_c(outcomes, risk, censoring) == 1
    assert dynamic_auc(outcomes, risk, np.array([2.5]), censoring)[1] == 1
    drawn = harrell_c(outcomes, risk, np.array([[0.0, 2, 1], [1, 0, 2], [3, 0, 0]]))
    assert drawn == pytest.approx([np.nan, 1, np.nan], nan_ok=True)


def test_no_event():
    outcomes = outcomes_of([2, 1, 3], [0, 0, 0])
    risk, horizons, once = np.arange(3.0), np.array([1.0, 1.5]), np.ones((1, 3))
    known = censoring_distribution(outcomes_of([9], [1]))
    with pytest.raises(ValueError, match="No event comes before the last time"):
        harrell_c(outcomes, risk)
    with pytest.raises(ValueError, match="No event comes before the last time"):
        uno_c(outcomes, risk, known)
    with pytest.raises(ValueError, match="No event was observed by horizon 1"):
        dynamic_auc(outcomes, risk, horizons, known)
    assert np.isnan(harrell_c(outcomes, risk, once)).tolist() == [True]
    assert np.isnan(uno_c(outcomes, risk, known, once)).tolist() == [True]
    areas, means = dynamic_auc(outcomes, risk, horizons, known, once)
    assert np.isnan(areas).tolist() == [[True, True]]
    assert np.isnan(means).tolist() == [True]


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda: harrell_c(outcomes_of([1, 2], [0, 1]), RISK[:2]), "No event comes before the la"),
        (lambda: uno_c(FOUR, RISK, G, tau=1), "No event before 1 comes before the last"),
        (
            lambda: uno_c(outcomes_of([1, 4, 5], [1, 1, 0]), RISK[:3], G),
            "distribution is zero at time 4, where it is needed",
        ),
        (
            lambda: uno_c(FOUR, RISK, censoring_distribution(outcomes_of([2.5], [1]))),
            "distribution is not known at time 3.* last patient has time 2.5",
        ),
        (
            lambda: brier(FOUR, SURVIVAL[:, :1], np.array([2.0]), GONE),
            "distribution is zero at time 2,",
        ),
        (
            lambda: dynamic_auc(FOUR, RISK, np.array([1.0, 3]), GONE),
            "distribution is zero at time 3,",
        ),
        (lambda: brier(FOUR, SURVIVAL, np.array([2.0, 4]), G), "Horizon 4 is not before the last"),
        (
            lambda: dynamic_auc(FOUR, RISK, np.array([2.0, 7]), G),
            "Horizon 7 is not before the last time, 4",
        ),
        (
            lambda: dynamic_auc(FOUR, RISK, np.array([0.5, 3]), G),
            "No event was observed by horizon 0.5",
        ),
        (
            lambda: integrated_brier(FOUR, SURVIVAL[:, :1], np.array([2.0]), G),
            "needs two horizons",
        ),
    ],
    ids=[
        "no-pair", "no-pair-before-tau", "zero-at-an-event", "unknown-at-an-event",
        "zero-at-a-horizon", "zero-at-a-case", "brier-after-the-last", "area-after-the-last",
        "no-event-by", "one-horizon",
    ],
)  # fmt: skip
def test_what_is_not_defined_is_said(score, message):
    with pytest.raises(ValueError, match=message):
        score()


def test_a_resample_whose_last_time_is_a_horizon_has_no_score_of_it():
    weights = np.array([[2.0, 1, 1, 0], [1, 1, 1, 1]])  # in the first, the last time is 3
    horizons = np.array([2.0, 3])
    scores = brier(FOUR, SURVIVAL, horizons, G, weights)
    areas, means = dynamic_auc(FOUR, RISK, horizons, G, weights)
    for found in (scores, areas):
        assert np.isnan(found).tolist() == [[False, True], [False, False]]
    for found in (means, integrated_brier(FOUR, SURVIVAL, horizons, G, weights)):
        assert np.isnan(found).tolist() == [True, False]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: harrell_c(FOUR, RISK[:3]), "Risks must be finite, of shape"),
        (lambda: harrell_c(FOUR, np.array([1, 2, 3, np.nan])), "Risks must be finite"),
        (lambda: harrell_c(FOUR, RISK, np.ones(4)), "Weights are"),
        (lambda: harrell_c(FOUR, RISK, np.ones((2, 3))), "expected .resamples, 4."),
        (lambda: dynamic_auc(FOUR, np.ones((4, 3)), np.array([1.0, 2]), G), "or .4, 2.; found"),
        (lambda: dynamic_auc(FOUR, RISK, np.array([2.0, 1]), G), "Horizons must be > 0 and incr"),
        (lambda: dynamic_auc(FOUR, RISK, np.array([]), G), "one or more finite numbers"),
        (lambda: brier(FOUR, SURVIVAL, np.array([0.0, 1]), G), "Horizons must be > 0"),
        (lambda: brier(FOUR, SURVIVAL[:, :1], np.array([2.0, 3]), G), "of shape .4, 2.; found"),
        (lambda: brier(FOUR, SURVIVAL + 1, np.array([2.0, 3]), G), "must be from 0 to 1"),
        (lambda: brier(FOUR, SURVIVAL * np.nan, np.array([2.0, 3]), G), "must be from 0 to 1"),
    ],
)
def test_refused_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
