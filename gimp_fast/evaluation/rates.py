"""Rates of class probabilities, with bootstrap intervals over patients."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score


def cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean −log p of the true class."""
    picked = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(picked, 1e-12, None)).mean())


def rates(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """Accuracy, balanced accuracy and macro F1 over the classes present, and macro one-vs-rest AUC.

    Args:
        probabilities: (patients, classes).
        labels: (patients,) int.

    Returns:
        The AUC is None where a class has no patient.
    """
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(1)
    confusion = np.bincount(labels * classes + predicted, minlength=classes**2)
    confusion = confusion.reshape(classes, classes)  # (true, predicted)
    hits, true, called = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    present = true > 0
    with np.errstate(invalid="ignore"):
        f1 = np.where(true + called > 0, 2 * hits / (true + called), 0.0)
    auc = None
    if present.all():
        scores = probabilities[:, 1] if classes == 2 else probabilities
        scores = scores.astype(np.float64)
        if classes > 2:
            scores = scores / scores.sum(1, keepdims=True)
        auc = float(roc_auc_score(labels, scores, multi_class="ovr", average="macro"))
    return {
        "accuracy": float(hits.sum() / len(labels)),
        "balanced_accuracy": float((hits[present] / true[present]).mean()),
        "f1_macro": float(f1[present].mean()),
        "auc": auc,
    }


def metrics_with_intervals(
    probabilities: np.ndarray, labels: np.ndarray, *, resamples: int, seed: int
) -> dict[str, Any]:
    """Rates with bootstrap 95 % confidence intervals over patients.

    Returns:
        ``{"n": …, "accuracy": {"value", "low", "high", "k", "n"}, "balanced_accuracy": {"value",
        "low", "high"}, "f1_macro": …, "auc": … or None}``. Resamples in which a class is missing
        have no AUC and do not count for its interval.
    """
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {}
    for _ in range(resamples):
        rows = rng.integers(len(labels), size=len(labels))
        for name, value in rates(probabilities[rows], labels[rows]).items():
            if value is not None:
                drawn.setdefault(name, []).append(value)
    result: dict[str, Any] = {"n": len(labels)}
    for name, value in rates(probabilities, labels).items():
        if value is None:
            result[name] = None
            continue
        low, high = np.percentile(drawn[name], [2.5, 97.5])
        result[name] = {"value": value, "low": float(low), "high": float(high)}
    correct = int((probabilities.argmax(1) == labels).sum())
    result["accuracy"] |= {"k": correct, "n": len(labels)}
    return result
