"""The truth of a patient in words."""

from __future__ import annotations

import pytest

from gimp_fast.data.cohort_targets import CohortTarget

TARGETS = {
    "event": (CohortTarget("os", "survival", {"A": (421.0, 1)}, unit="days"), "421 days, event"),
    "censored": (CohortTarget("os", "survival", {"A": (3.5, 0)}), "3.5, censored"),
    "number": (CohortTarget("burden", "regression", {"A": 12.3456}), "12.35"),
    "class": (CohortTarget("grade", "class", {"A": 1}, classes=("G1", "G2")), "G2"),
}


@pytest.mark.parametrize(("target", "words"), TARGETS.values(), ids=TARGETS)
def test_the_truth_is_told_in_words(target, words):
    assert target.words("A") == words
    assert target.words("B") is None
