"""Precision and recall against scikit-learn, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve

from gimp_fast.evaluation.precision_recall import precision_recall


@pytest.mark.parametrize("n", [2, 3, 7, 200], ids=lambda n: f"n{n}")
@pytest.mark.parametrize("digits", [1, 9], ids=["ties", "no ties"])
def test_points_and_area_are_those_of_scikit_learn(n, digits):
    rng = np.random.default_rng(n)
    truth = rng.random(n) < 0.3
    truth[:2] = True, False
    scores = (0.3 * truth + rng.random(n)).round(digits)
    recall, precision, area = precision_recall(scores, truth)
    assert area == pytest.approx(average_precision_score(truth, scores))
    theirs = precision_recall_curve(truth, scores)
    np.testing.assert_allclose(precision[1:], theirs[0][-2::-1])
    np.testing.assert_allclose(recall[1:], theirs[1][-2::-1])


def test_a_curve_by_hand():
    found = precision_recall(np.array([0.9, 0.8, 0.8, 0.1]), np.array([1, 0, 1, 0], bool))
    np.testing.assert_allclose(found[0], [0, 0.5, 1, 1])
    np.testing.assert_allclose(found[1], [1, 1, 2 / 3, 0.5])
    assert found[2] == pytest.approx(0.5 + 0.5 * 2 / 3)


@pytest.mark.parametrize("truth", [[0, 0], [1, 1], []], ids=["no positive", "all", "nobody"])
def test_one_class_has_no_curve(truth):
    assert precision_recall(np.linspace(0, 1, len(truth)), np.array(truth, bool)) is None
