"""Which classes and horizons have a decision curve, and that it is theirs."""

from __future__ import annotations

import numpy as np
import pytest
from builders.outcomes import longest_censored, random_survival

from gimp_fast.evaluation.decision_curve import decision_curve, decision_curve_at
from gimp_fast.evaluation.intervals import patient_weights
from gimp_fast.evaluation.named_curves import curves_at_horizons, curves_of_classes

N = 31
WEIGHTS = patient_weights(N, 40)


def same(found, expected) -> None:
    """Two curves are equal in every number."""
    np.testing.assert_array_equal(found.treat_all, expected.treat_all)
    assert (found.model, found.gain) == (expected.model, expected.gain)


@pytest.mark.parametrize(("count", "places"), [(2, [1]), (3, [0, 1, 2])], ids=["two", "three"])
def test_each_class_has_its_own_curve(count, places):
    probabilities = np.random.default_rng(0).dirichlet(np.ones(count), N)
    label = np.arange(N) % count
    found = curves_of_classes(probabilities, label, "abc"[:count], WEIGHTS)
    assert [named.name for named in found] == [f"decision_{place}" for place in places]
    for named, place in zip(found, places, strict=True):
        assert "abc"[place] in named.title
        same(named.curve, decision_curve(probabilities[:, place], label == place, WEIGHTS))


def test_a_class_that_nobody_has_says_why():
    probabilities = np.full((N, 3), 1 / 3)
    *others, last = curves_of_classes(probabilities, np.arange(N) % 2, "abc", WEIGHTS)
    assert all(named.curve for named in others)
    assert last.curve is None
    assert last.reason == "it needs patients with and without the class."


def test_horizons_are_of_the_event_and_end_with_the_patients():
    outcomes, times = longest_censored(N), [2.0, 6.0]
    survival = random_survival(N, np.array(times)) * 1.3  # some above 1
    last = 2 * outcomes.time.max()
    horizons = [("2 years", times[0]), ("6 years", times[1]), ("later", last)]
    survival = np.c_[survival, survival[:, 1]]
    *found, later = curves_at_horizons(outcomes, survival, horizons, WEIGHTS)
    assert [named.event for named in found] == ["the event by 2 years", "the event by 6 years"]
    for named, time, predicted in zip(found, times, survival.T[:2], strict=True):
        events = 1 - np.minimum(predicted, 1)
        same(named.curve, decision_curve_at(outcomes, events, time, WEIGHTS))
    assert later.curve is None
    assert "nobody was followed" in later.reason
