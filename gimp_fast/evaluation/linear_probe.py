"""A linear classifier of frozen vectors: what an encoder has learned, without training it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

STRENGTH = 0.05  # not tuned, the same for all


def standardised_regression(strength: float = STRENGTH) -> Pipeline:
    """Logistic regression of standardised features, not fitted yet; ``strength`` is its C."""
    # Here: it takes seconds, and brings scipy, for what few commands need.
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000))


def probe(
    vectors: np.ndarray, labels: np.ndarray, fitted: np.ndarray, asked: np.ndarray
) -> np.ndarray:
    """What a linear classifier of some patients says of others.

    Args:
        vectors: (n, d) of patients, from a frozen encoder.
        labels: (n,) their classes, of any type that sorts.
        fitted: (n,) bool, the patients that it learns from; at least two classes.
        asked: (n,) bool, the patients that it classifies.

    Returns:
        (asked patients, K) probabilities of the K classes of ``labels``, sorted; zero for a class
        that it has not learned.
    """
    classes, codes = np.unique(labels, return_inverse=True)
    vectors = vectors.astype(np.float64)
    model = standardised_regression()
    with threadpool_limits(1):  # small products: other runs have the other cores
        model.fit(vectors[fitted], codes[fitted])
        found = model.predict_proba(vectors[asked])
    probabilities = np.zeros((len(found), len(classes)))
    probabilities[:, model.classes_] = found
    return probabilities
