"""Paired comparisons of models on the same patients: bootstrap, McNemar's exact test, Holm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gimp_fast.evaluation.intervals import Estimate, estimate
from gimp_fast.evaluation.rates import Predictions, auc
from gimp_fast.evaluation.score_intervals import of_difference


@dataclass(frozen=True)
class McNemar:
    """McNemar's exact test, two-sided, of two models that predicted each patient once.

    ``only_this`` counts the patients whom only this model got right.
    """

    only_this: int
    only_reference: int
    p: float
    p_holm: float


@dataclass(frozen=True)
class Difference:
    """Accuracy of a model minus that of the reference, on what both predicted.

    Attributes:
        low, high, p: 95 % interval and two-sided p of the cluster bootstrap; if all patients have
            the same difference, the interval of :func:`score_intervals.of_difference`.
        p_holm: corrected for the number of comparisons.
        patients: how many were compared.
        mcnemar: None unless each patient was predicted once by each model.
    """

    value: float
    low: float
    high: float
    p: float
    p_holm: float
    patients: int
    mcnemar: McNemar | None

    @property
    def best_p(self) -> float:
        """Corrected p of McNemar's exact test where it applies, of the bootstrap elsewhere."""
        return (self.mcnemar or self).p_holm


def compare_all(
    models: Mapping[str, Predictions], reference: str, weights: np.ndarray
) -> dict[str, Difference]:
    """Each model against the reference, with p values corrected for the number of comparisons.

    Takes bootstrap weights (R, patients). Models that share no patient with the reference are left
    out; so are all if there is no reference.
    """
    if reference not in models:
        return {}
    pairs = {
        key: pair
        for key, model in models.items()
        if key != reference and (pair := compare(model, models[reference], weights))
    }
    exact = _corrected({key: pair.mcnemar for key, pair in pairs.items() if pair.mcnemar})
    return {key: replace(pair, mcnemar=exact.get(key)) for key, pair in _corrected(pairs).items()}


def _corrected(tests: Mapping[str, Any]) -> dict[str, Any]:
    """The tests with ``p_holm`` set."""
    corrected = holm([test.p for test in tests.values()])
    return {
        key: replace(test, p_holm=p)
        for (key, test), p in zip(tests.items(), corrected, strict=True)
    }


def compare(model: Predictions, reference: Predictions, weights: np.ndarray) -> Difference | None:
    """Paired comparison; None if no patient was predicted by both.

    A patient counts once for each fold that they are tested in, with the mean over seeds. The p of
    the bootstrap is twice the smaller share of resamples whose difference is on one side of zero,
    zero included: the level at which the percentile interval begins to exclude zero.
    """
    patients = weights.shape[1]
    folds = 1 + max(model.split.max(), reference.split.max())
    mine, theirs = (_hits_by_fold(p, patients, folds) for p in (model, reference))
    both = np.isfinite(mine) & np.isfinite(theirs)  # (patients, folds)
    if not both.any():
        return None
    gap = np.where(both, mine - theirs, 0.0).sum(1)
    count = both.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = (weights @ gap) / (weights @ count)
    gaps = float(gap.sum() / count.sum())
    value = estimate(gaps, draws, lambda: of_difference(gaps, int((count > 0).sum())))
    if value is None:  # no resample holds a patient of both
        return None
    draws = draws[np.isfinite(draws)]
    tolerance = 1e-12  # sums of a third and two thirds are zero only to rounding
    tail = min((draws <= tolerance).sum(), (draws >= -tolerance).sum())
    p = float(min(1.0, 2 * (tail + 1) / (len(draws) + 1)))
    mcnemar = None
    if len(model) == len(reference) == count.sum() and count.max() == 1:
        only_this, only_reference = int((gap > 0).sum()), int((gap < 0).sum())
        exact = mcnemar_exact(only_this, only_reference)
        mcnemar = McNemar(only_this, only_reference, exact, exact)
    compared = int((count > 0).sum())
    return Difference(value.value, value.low, value.high, p, p, compared, mcnemar)


def compare_auc(model: Predictions, reference: Predictions, weights: np.ndarray) -> Estimate | None:
    """AUC of a model minus that of the reference on the same patients, with a paired interval.

    None if a class has no patient.
    """
    once = np.ones((1, weights.shape[1]))
    value = float((auc(model, once) - auc(reference, once))[0])
    return estimate(value, auc(model, weights) - auc(reference, weights))


def _hits_by_fold(predictions: Predictions, patients: int, folds: int) -> np.ndarray:
    """(patients, folds), mean over seeds; NaN where there is no prediction."""
    unit = predictions.patient * folds + predictions.split
    count = np.bincount(unit, minlength=patients * folds)
    hits = np.bincount(unit, weights=predictions.hits, minlength=patients * folds)
    with np.errstate(invalid="ignore"):
        return (hits / count).reshape(patients, folds)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact p of the discordant pairs, a fair coin each if the models are equal."""
    discordant = only_first + only_second
    if not discordant:
        return 1.0
    from scipy.stats import binomtest  # a second, which commands that compare nothing save

    return float(binomtest(only_first, discordant, 0.5).pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """p values corrected for their number by Holm's step-down procedure."""
    p = np.asarray(values, float)
    order = np.argsort(p, kind="stable")
    corrected = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    result = np.empty(len(p))
    result[order] = np.minimum(corrected, 1.0)
    return result.tolist()
