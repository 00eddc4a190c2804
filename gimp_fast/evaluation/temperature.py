"""Temperature scaling: one number that makes a classifier's probabilities more or less extreme.

The probabilities of a model become softmax(log p / T) (Guo et al., ICML 2017). T above 1 makes them
less certain. Which class is the largest does not change, so neither does the accuracy.
"""

from __future__ import annotations

import numpy as np

from gimp_fast.evaluation.rates import SMALLEST_PROBABILITY

_LEAST, _MOST = 1e-2, 1e2  # of 1 / T
_HALVINGS = 80


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature at which probabilities (n, K) have the lowest cross-entropy.

    The cross-entropy is convex in 1 / T; the place where its slope is zero is found by halving.

    Args:
        probabilities: of patients that the model was not fitted to.
        labels: (n,) int, their classes.

    Raises:
        ValueError: no patient; or the cross-entropy has no lowest value, because every patient is
            predicted correctly, or the probabilities tell the classes no better than chance.
    """
    if not len(labels):
        raise ValueError("there is no patient")
    logs = _logs(probabilities)
    truth = logs[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        scaled = _softmax(inverse * logs)
        return float(((scaled * logs).sum(1) - truth).mean())

    if slope(_MOST) <= 0:
        raise ValueError("the larger the probabilities of the predicted classes, the better")
    if slope(_LEAST) >= 0:
        raise ValueError("the probabilities are no better than equal ones")
    low, high = np.log(_LEAST), np.log(_MOST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(float(np.exp(middle))) > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def at_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (n, K) float64 at a temperature above 0; 1 leaves them as they are."""
    return _softmax(_logs(probabilities) / temperature)


def _logs(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.clip(np.asarray(probabilities, np.float64), SMALLEST_PROBABILITY, None))


def _softmax(logs: np.ndarray) -> np.ndarray:
    shares = np.exp(logs - logs.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)
