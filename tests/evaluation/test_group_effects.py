"""Shares of variance between groups, against scikit-learn's F and against shuffled patients."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_selection import f_classif

from gimp_fast.evaluation.group_effects import group_effect, share_between


@pytest.fixture
def groups():
    return np.array(list("aaaaabbbbbbbcccccccccccde"))


def test_the_share_is_that_of_an_analysis_of_variance(groups):
    values = np.random.default_rng(0).normal(size=(len(groups), 1))
    f, _ = f_classif(values, groups)
    between, within = len(set(groups)) - 1, len(groups) - len(set(groups))
    expected = f[0] * between / (f[0] * between + within)
    assert group_effect(values, groups, permutations=3).share == pytest.approx(expected)
    assert share_between(values + 7, groups) == pytest.approx(expected)


def test_groups_that_differ_do_so_beyond_chance_and_others_do_not(groups):
    values = np.random.default_rng(1).normal(size=(len(groups), 30))
    random = group_effect(values, groups)
    assert abs(random.share - random.by_chance) < 0.1
    assert random.p > 0.01
    values[groups == "c"] += 2
    found = group_effect(values, groups)
    assert found.share > random.by_chance + 0.2
    assert found.p == 1 / 200


def test_within_strata_what_they_explain_does_not_count(groups):
    strata = np.where(groups == "c", "x", "y")
    values = np.random.default_rng(2).normal(size=(len(groups), 30))
    values[groups == "c"] += 5
    assert group_effect(values, groups).p == 1 / 200
    assert group_effect(values, groups, strata).p > 0.01


def test_constant_values_and_one_group():
    ones, one_group = np.ones((6, 2)), np.zeros(6)
    assert group_effect(ones, np.array([0, 0, 0, 1, 1, 1]), permutations=5).share == 0
    assert share_between(np.arange(6.0)[:, None], one_group) == pytest.approx(0)
