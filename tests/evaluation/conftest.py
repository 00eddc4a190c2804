"""Builders of predictions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gimp_fast.evaluation.rates import Predictions

Builder = Callable[..., Predictions]


@pytest.fixture(scope="session")
def made() -> Builder:
    """``made(label, predicted, ...)``: predictions of one patient each, by one run, by default."""
    return _made


@pytest.fixture(scope="session")
def drawn() -> Builder:
    """``drawn(classes, n=60, seed=0, runs=1)``: random predictions, with ties."""
    return _drawn


def _made(label, predicted=None, *, probabilities=None, patient=None, split=None, run=None):
    label = np.array(label)
    n = len(label)
    if probabilities is None:
        probabilities = np.eye(max(label.max(), np.max(predicted)) + 1)[predicted]
    predicted = probabilities.argmax(1) if predicted is None else np.array(predicted)
    patient = np.arange(n) if patient is None else np.array(patient)
    zeros = np.zeros(n, int)
    split = zeros if split is None else np.array(split)
    run = zeros if run is None else np.array(run)
    return Predictions(patient, split, run, label, predicted, np.asarray(probabilities, float))


def _drawn(classes, n=60, seed=0, runs=1):
    rng = np.random.default_rng(seed)
    label = rng.integers(classes, size=n)
    scores = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[label]
    probabilities = np.round(np.exp(scores) / np.exp(scores).sum(1, keepdims=True), 2)  # ties
    return _made(label, probabilities=probabilities, run=np.arange(n) % runs)
