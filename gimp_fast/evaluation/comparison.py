"""Rates, intervals and tests of predictions that patients may have more than one of.

A patient can be in the test set of several folds, and is predicted anew with every seed. Such
predictions are not independent, so everything here resamples patients, and all predictions of a
patient come with them (the cluster bootstrap).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, rankdata

INTERVAL = (2.5, 97.5)
BINS = 10


@dataclass(frozen=True)
class Predictions:
    """n predictions of test patients by the models of one row.

    Attributes:
        patient: (n,) int, which patient, of ``patients`` in all.
        split: (n,) int, in which fold.
        run: (n,) int, by which trained model; a number says one split and one seed.
        label: (n,) int, the true class.
        predicted: (n,) int, the class that was called.
        probabilities: (n, K).
    """

    patient: np.ndarray
    split: np.ndarray
    run: np.ndarray
    label: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray

    @property
    def hits(self) -> np.ndarray:
        """(n,) bool."""
        return self.predicted == self.label

    @property
    def classes(self) -> int:
        return self.probabilities.shape[1]

    def __len__(self) -> int:
        return len(self.label)

    def of_run(self, run: int) -> Predictions:
        chosen = self.run == run
        return Predictions(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


def patient_weights(patients: int, resamples: int, seed: int = 0) -> np.ndarray:
    """How often each patient is drawn: (resamples, patients), rows sum to ``patients``.

    One such array serves all rows of a table, which makes their comparisons paired.
    """
    rng = np.random.default_rng(seed)
    return rng.multinomial(patients, np.full(patients, 1 / patients), size=resamples).astype(float)


def interval(draws: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval; draws that are not finite do not count."""
    finite = draws[np.isfinite(draws)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.percentile(finite, INTERVAL)
    return float(low), float(high)


def mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n − 1); one value has none."""
    array = np.asarray(values, float)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None


def rates(predictions: Predictions, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy, balanced accuracy and macro F1 of all predictions together.

    Args:
        weights: (R, patients), how often each patient counts.

    Returns:
        name -> (R,). Classes without a patient do not count for the last two.
    """
    confusion = _confusions(predictions, weights)
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    true, called = confusion.sum(2), confusion.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = np.where(true > 0, hits / true, np.nan)
        f1 = np.where(true > 0, 2 * hits / (true + called), np.nan)
        return {
            "accuracy": hits.sum(1) / true.sum(1),
            "balanced_accuracy": np.nanmean(recall, axis=1),
            "f1_macro": np.nanmean(f1, axis=1),
        }


def _confusions(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    """(R, K, K), rows true, columns called."""
    classes, patients = predictions.classes, weights.shape[1]
    confusion = np.zeros((len(weights), classes, classes))
    for true in range(classes):
        for called in range(classes):
            chosen = (predictions.label == true) & (predictions.predicted == called)
            count = np.bincount(predictions.patient[chosen], minlength=patients)
            confusion[:, true, called] = weights @ count
    return confusion


def auc(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve, one class against the rest, mean over classes and over runs.

    Scores of different models share no scale, so that each run has its own area; a run counts
    where every class has a patient.

    Args:
        weights: (R, patients).

    Returns:
        (R,), NaN where no run counts.
    """
    runs = [predictions.of_run(run) for run in np.unique(predictions.run)]
    areas = np.stack([_auc_of_run(run, weights) for run in runs])  # (runs, R)
    counted = np.isfinite(areas)
    with np.errstate(invalid="ignore"):
        return np.where(counted, areas, 0.0).sum(0) / counted.sum(0)


def _auc_of_run(run: Predictions, weights: np.ndarray) -> np.ndarray:
    # Of two classes, both have the same area.
    positives = [1] if run.classes == 2 else range(run.classes)
    areas = [_one_against_rest(run, positive, weights) for positive in positives]
    return np.mean(areas, axis=0)


def _one_against_rest(run: Predictions, positive: int, weights: np.ndarray) -> np.ndarray:
    """Weighted share of (positive, negative) pairs in the right order; ties count half."""
    score = rankdata(run.probabilities[:, positive], method="dense")
    is_positive = run.label == positive
    above = score[is_positive][:, None] - score[~is_positive][None, :]
    right = (np.sign(above) + 1) / 2  # (positives, negatives)
    of_positive = weights[:, run.patient[is_positive]]
    of_negative = weights[:, run.patient[~is_positive]]
    pairs = of_positive.sum(1) * of_negative.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, ((of_positive @ right) * of_negative).sum(1) / pairs, np.nan)


def brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """½ Σ_k (p_k − [k = y])², mean over predictions; of two classes, the usual (p − y)²."""
    truth = np.eye(probabilities.shape[1])[labels]
    return float(0.5 * ((probabilities - truth) ** 2).sum(1).mean())


def reliability(
    confidence: np.ndarray, hits: np.ndarray, bins: int = BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, accuracy and size of bins that hold equally many predictions.

    Args:
        confidence: (n,), probability of the class that was called.
        hits: (n,) bool.
        bins: at most this many.
    """
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return (
        np.array([confidence[part].mean() for part in parts]),
        np.array([hits[part].mean() for part in parts]),
        np.array([len(part) for part in parts]),
    )


def calibration_error(confidence: np.ndarray, hits: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: mean |accuracy − confidence| over bins of equal mass."""
    said, right, sizes = reliability(confidence, hits, bins)
    return float((sizes * np.abs(right - said)).sum() / sizes.sum())


@dataclass(frozen=True)
class Difference:
    """Accuracy of a row minus that of the reference, on what both predicted.

    Attributes:
        value, low, high: with the 95 % interval of the cluster bootstrap.
        p: two-sided, of the same bootstrap.
        mcnemar: (only the row right, only the reference right, exact p), where each patient was
            predicted once by each; None elsewhere.
        patients: how many were compared.
    """

    value: float
    low: float
    high: float
    p: float
    mcnemar: tuple[int, int, float] | None
    patients: int


def compare(row: Predictions, reference: Predictions, weights: np.ndarray) -> Difference | None:
    """Paired comparison; None where they have no patient in common.

    A patient counts once for each fold that they are tested in; seeds are averaged in it. The
    bootstrap's p is twice the smaller share of resamples whose difference is on one side of zero,
    zero included: the level at which the percentile interval begins to exclude zero.
    """
    patients = weights.shape[1]
    folds = 1 + max(row.split.max(), reference.split.max())
    mine, theirs = (_hits_by_unit(p, patients, folds) for p in (row, reference))
    both = np.isfinite(mine) & np.isfinite(theirs)  # (patients, folds)
    if not both.any():
        return None
    gap = np.where(both, mine - theirs, 0.0).sum(1)
    count = both.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = (weights @ gap) / (weights @ count)
    draws = draws[np.isfinite(draws)]
    tolerance = 1e-12  # sums of a third and two thirds are zero only to rounding
    tail = min((draws <= tolerance).sum(), (draws >= -tolerance).sum())
    p = min(1.0, 2 * (tail + 1) / (len(draws) + 1))
    mcnemar = None
    once = len(row) == len(reference) == count.sum() and count.max() == 1
    if once:
        only_row, only_reference = int((gap > 0).sum()), int((gap < 0).sum())
        mcnemar = (only_row, only_reference, mcnemar_exact(only_row, only_reference))
    return Difference(
        float(gap.sum() / count.sum()), *interval(draws), float(p), mcnemar, int((count > 0).sum())
    )


def _hits_by_unit(predictions: Predictions, patients: int, folds: int) -> np.ndarray:
    """(patients, folds), mean over seeds; NaN where there is no prediction."""
    unit = predictions.patient * folds + predictions.split
    count = np.bincount(unit, minlength=patients * folds)
    hits = np.bincount(unit, weights=predictions.hits, minlength=patients * folds)
    with np.errstate(invalid="ignore"):
        return (hits / count).reshape(patients, folds)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact p of the discordant pairs, which are heads and tails if nothing differs."""
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def holm(values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p values for having made all of these tests."""
    p = np.asarray(values, float)
    order = np.argsort(p, kind="stable")
    corrected = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    result = np.empty(len(p))
    result[order] = np.minimum(corrected, 1.0)
    return result.tolist()
