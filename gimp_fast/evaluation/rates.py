"""Accuracy, F1, AUC and cross-entropy of class predictions, also for many resamples at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from gimp_fast.evaluation import score_intervals
from gimp_fast.evaluation.intervals import Estimate, estimate

_BLOCK = 256  # resamples at a time, to bound the memory for large test sets
SMALLEST_PROBABILITY = 1e-12  # whose logarithm is taken


@dataclass(frozen=True)
class Share:
    """k of n."""

    value: float
    k: int
    n: int

    @classmethod
    def of(cls, hits: np.ndarray) -> Share:
        """The share that is true in (n,) bool."""
        return cls(float(np.mean(hits)), int(np.sum(hits)), len(hits))


@dataclass(frozen=True)
class EstimatedShare(Estimate):
    """A share of k in n predictions, with its 95 % interval."""

    k: int
    n: int


@dataclass(frozen=True)
class Predictions:
    """n predictions of patients, by one trained model or several.

    All are (n,) int, but probabilities (n, K). A run is a trained model: one split and one seed.
    """

    patient: np.ndarray
    split: np.ndarray
    run: np.ndarray
    label: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def of_one_model(cls, probabilities: np.ndarray, labels: np.ndarray) -> Predictions:
        """One prediction of each patient: probabilities (n, K), labels (n,) int."""
        zeros, predicted = np.zeros(len(labels), int), probabilities.argmax(1)
        probabilities = probabilities.astype(np.float64)
        if probabilities.shape[1] > 2:
            # fp32 rounds the sum of a softmax, which would decide between nearly equal scores.
            probabilities = probabilities / probabilities.sum(1, keepdims=True)
        return cls(np.arange(len(labels)), zeros, zeros, labels, predicted, probabilities)

    @property
    def hits(self) -> np.ndarray:
        """(n,) bool."""
        return self.predicted == self.label

    @property
    def confidence(self) -> np.ndarray:
        """(n,) probability of the predicted class."""
        return self.probabilities[np.arange(len(self)), self.predicted]

    @property
    def losses(self) -> np.ndarray:
        """(n,) −log p of the true class."""
        return _losses(self.probabilities, self.label)

    @property
    def classes(self) -> int:
        return self.probabilities.shape[1]

    @property
    def positives(self) -> range:
        """Classes to set against the rest; of two, only the second: both give the same area."""
        return range(1, 2) if self.classes == 2 else range(self.classes)

    def __len__(self) -> int:
        return len(self.label)

    def by_run(self) -> list[Predictions]:
        """The predictions of each trained model."""
        return [self.chosen(self.run == run) for run in np.unique(self.run)]

    def chosen(self, rows: np.ndarray) -> Predictions:
        """Some of the predictions, by (n,) bool."""
        return Predictions(*(getattr(self, name)[rows] for name in self.__match_args__))


def cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean −log p of the true class."""
    return float(_losses(probabilities, labels).mean())


def _losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    picked = probabilities[np.arange(len(labels)), labels]
    return -np.log(np.clip(picked, SMALLEST_PROBABILITY, None))


def rates(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """Accuracy, balanced accuracy and macro F1 over the classes present, and macro one-vs-rest AUC.

    Of probabilities (n, K) and labels (n,) int; the AUC is None if a class has no patient.
    """
    once = np.ones((1, len(labels)))
    values = weighted_rates(Predictions.of_one_model(probabilities, labels), once)
    return {name: float(value) if np.isfinite(value) else None for name, (value,) in values.items()}


def metrics_with_intervals(
    probabilities: np.ndarray, labels: np.ndarray, *, resamples: int, seed: int
) -> dict[str, Any]:
    """Rates with 95 % confidence intervals over patients, as :func:`estimates` makes them.

    Returns:
        ``{"n": …, "accuracy": {"value", "low", "high", "k", "n"}, "balanced_accuracy": {"value",
        "low", "high"}, "f1_macro": …, "auc": … or None}``. Resamples in which a class is missing
        have no AUC and do not count for its interval.
    """
    predictions, n = Predictions.of_one_model(probabilities, labels), len(labels)
    drawn = np.random.default_rng(seed).integers(n, size=(resamples, n))
    weights = np.stack([np.bincount(rows, minlength=n) for rows in drawn]).astype(float)
    found = estimates(predictions, weights)
    return {"n": n} | {name: value and asdict(value) for name, value in found.items()}


def in_blocks(weights: np.ndarray) -> list[np.ndarray]:
    """Resamples in blocks that a cache holds the work of."""
    return np.array_split(weights, 1 + len(weights) // _BLOCK)


def estimates(predictions: Predictions, weights: np.ndarray) -> dict[str, Estimate | None]:
    """Every rate of :func:`weighted_rates`, with its interval over bootstrap weights (R, patients).

    If the bootstrap gives a single value, the interval is that of ``score_intervals`` for as many
    patients as there are, however often each was predicted.

    Returns:
        name -> estimate, of the accuracy an ``EstimatedShare``; None for an AUC that no run, or no
        resample, has.
    """
    once = weighted_rates(predictions, np.ones((1, weights.shape[1])))
    drawn = [weighted_rates(predictions, block) for block in in_blocks(weights)]
    found = {
        name: estimate(
            value,
            np.concatenate([block[name] for block in drawn]),
            partial(score_interval, name, value, predictions),
        )
        for name, (value,) in once.items()
    }
    k, n = int(predictions.hits.sum()), len(predictions)
    return found | {"accuracy": EstimatedShare(**asdict(found["accuracy"]), k=k, n=n)}


def mean_estimate(predictions: Predictions, values: np.ndarray, weights: np.ndarray) -> Estimate:
    """Mean of (n,) values, with its interval over bootstrap weights (R, patients)."""
    patients = weights.shape[1]
    total = np.bincount(predictions.patient, values, minlength=patients)
    count = np.bincount(predictions.patient, minlength=patients)
    with np.errstate(invalid="ignore", divide="ignore"):
        return estimate(float(values.mean()), (weights @ total) / (weights @ count))


def score_interval(name: str, value: float, predictions: Predictions) -> tuple[float, float]:
    """The interval of a rate that is the same in every resample."""
    label, patient, called = predictions.label, predictions.patient, predictions.predicted

    def patients(chosen: np.ndarray) -> int:
        return len(np.unique(patient[chosen]))

    classes = np.unique(label)
    if name == "accuracy":
        return score_intervals.of_share(value, patients(slice(None)))
    if name == "balanced_accuracy":
        recalls = [predictions.hits[label == k].mean() for k in classes]
        return score_intervals.of_mean_share(recalls, [patients(label == k) for k in classes])
    if name == "f1_macro":
        hits = [patients(predictions.hits & (label == k)) for k in classes]
        concerned = [patients((label == k) | (called == k)) for k in classes]
        return score_intervals.of_f1(hits, concerned)
    ends = [
        score_intervals.of_area(value, patients(label == k), patients(label != k))
        for k in predictions.positives
    ]
    low, high = np.mean(ends, axis=0)
    return float(low), float(high)


def weighted_rates(predictions: Predictions, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Rates over all predictions, and the AUC, once for each row of weights (R, patients).

    Returns:
        accuracy, balanced_accuracy, f1_macro, auc -> (R,). Balanced accuracy and F1 are means over
        the classes that have a patient.
    """
    classes, patients = predictions.classes, weights.shape[1]
    cell = (predictions.patient * classes + predictions.label) * classes + predictions.predicted
    counts = np.bincount(cell, minlength=patients * classes**2).reshape(patients, -1)
    confusion = (weights @ counts).reshape(-1, classes, classes)  # (R, true, predicted)
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    true, called = confusion.sum(2), confusion.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = np.where(true > 0, hits / true, np.nan)
        f1 = np.where(true > 0, 2 * hits / (true + called), np.nan)
        return {
            "accuracy": hits.sum(1) / true.sum(1),
            "balanced_accuracy": np.nanmean(recall, axis=1),
            "f1_macro": np.nanmean(f1, axis=1),
            "auc": auc(predictions, weights),
        }


def auc(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each class against the rest, mean over classes, then over runs.

    Scores of different models share no scale, so each run has its own area. A run counts if every
    class has a patient. Of weights (R, patients), (R,); NaN where no run counts.
    """
    areas = []
    for run in predictions.by_run():
        of_classes = [_one_against_rest(run, k, weights) for k in run.positives]
        areas.append(np.mean(of_classes, axis=0))
    return mean_over_runs(areas)


def mean_over_runs(scores: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of the runs' scores, all of one shape, without those that are NaN; NaN if all are."""
    counted = np.isfinite(scores)
    with np.errstate(invalid="ignore"):
        return np.where(counted, scores, 0.0).sum(0) / counted.sum(0)


def _one_against_rest(run: Predictions, positive: int, weights: np.ndarray) -> np.ndarray:
    truth = run.label == positive
    return weighted_area(run.probabilities[:, positive], truth, ~truth, weights[:, run.patient])


def weighted_area(
    scores: np.ndarray,
    positives: np.ndarray,
    negatives: np.ndarray,
    weights: np.ndarray,
    tied: float = 0.0,
) -> np.ndarray:
    """Weighted share of (positive, negative) pairs in the right order; ties count half.

    Args:
        scores: (n,), higher for positives; equal if no gap between them exceeds ``tied``.
        positives, negatives: (n,) bool, or what each counts as one.
        weights: (R, n) of a bootstrap.

    Returns:
        (R,); NaN without a pair.
    """
    order = np.argsort(scores, kind="stable")
    first_of_ties = np.flatnonzero(np.r_[True, np.diff(scores[order]) > tied])
    drawn = weights[:, order]
    of_positives, of_negatives = (
        np.add.reduceat(drawn * counted[order], first_of_ties, axis=1)
        for counted in (positives, negatives)
    )  # (R, distinct scores)
    below = np.cumsum(of_negatives, axis=1) - of_negatives / 2
    pairs = of_positives.sum(1) * of_negatives.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, (of_positives * below).sum(1) / pairs, np.nan)


def roc(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, float] | None:
    """False and true positive rates, (points,), and the area; None if all or none are positive."""
    if truth.all() or not truth.any():
        return None
    # Imported here: it takes seconds, and brings scipy, for curves that reports alone draw.
    from sklearn.metrics import roc_auc_score, roc_curve

    false_positive, true_positive, _ = roc_curve(truth, scores)
    return false_positive, true_positive, float(roc_auc_score(truth, scores))


def mean_roc(predictions: Predictions, false_positive_rates: np.ndarray) -> np.ndarray:
    """True positive rates at these false positive rates, mean over classes and runs."""
    curves = []
    for run in predictions.by_run():
        for positive in run.positives:
            found = roc(run.probabilities[:, positive], run.label == positive)
            if found is not None:
                curves.append(np.interp(false_positive_rates, *found[:2]))
    return np.mean(curves, axis=0)
