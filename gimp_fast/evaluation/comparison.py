"""Paired comparisons of models on the same patients: bootstrap, McNemar's exact test, Holm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypeVar

import numpy as np

from gimp_fast.evaluation.intervals import estimate
from gimp_fast.evaluation.rates import Predictions, auc, in_blocks
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
    """A metric of a model minus that of the reference, on what both predicted.

    Attributes:
        low, high, p: 95 % interval and two-sided p of the cluster bootstrap; if all patients have
            the same difference in accuracy, the interval of :func:`score_intervals.of_difference`.
        p_holm: corrected for the number of comparisons of this metric.
        patients: how many were compared.
        mcnemar: of the accuracy, if each patient was predicted once by each model.
    """

    value: float
    low: float
    high: float
    p: float
    p_holm: float
    patients: int
    mcnemar: McNemar | None = None

    @property
    def best_p(self) -> float:
        """Corrected p of McNemar's exact test where it applies, of the bootstrap elsewhere."""
        return (self.mcnemar or self).p_holm


@dataclass(frozen=True)
class Comparison:
    """A model against the reference; the AUC is None if a class has no patient of both."""

    accuracy: Difference
    auc: Difference | None
    cross_entropy: Difference


class _HasPatients(Protocol):
    """What predictions of classes and of survival have in common."""

    @property
    def patient(self) -> np.ndarray: ...

    @property
    def split(self) -> np.ndarray: ...

    def chosen(self, rows: np.ndarray) -> Any: ...


_Predicted = TypeVar("_Predicted", bound=_HasPatients)
METRICS = tuple(field.name for field in fields(Comparison))


def compare_all(
    models: Mapping[str, Predictions],
    reference: str,
    weights: np.ndarray,
    *,
    units_are_patients: bool = True,
) -> dict[str, Comparison]:
    """Each model against the reference, with p values corrected for the number of comparisons.

    Args:
        models: their predictions, by key.
        reference: its key.
        weights: of the bootstrap, (R, patients).
        units_are_patients: whether patients were drawn. If hospitals were, McNemar's test, for
            which patients are independent, is left out.

    Returns:
        Models that share no patient with the reference are left out; so are all if there is no
        reference.
    """
    if reference not in models:
        return {}
    pairs = {
        key: pair
        for key, model in models.items()
        if key != reference and (pair := compare(model, models[reference], weights))
    }
    if not units_are_patients:
        pairs = {
            key: replace(pair, accuracy=replace(pair.accuracy, mcnemar=None))
            for key, pair in pairs.items()
        }
    for metric in METRICS:
        tests = {key: test for key, pair in pairs.items() if (test := getattr(pair, metric))}
        exact = corrected({key: test.mcnemar for key, test in tests.items() if test.mcnemar})
        for key, test in corrected(tests).items():
            test = replace(test, mcnemar=exact.get(key))
            pairs[key] = replace(pairs[key], **{metric: test})
    return pairs


def corrected(tests: Mapping[str, Any]) -> dict[str, Any]:
    """The tests with ``p_holm`` set."""
    p_holm = holm([test.p for test in tests.values()])
    return {
        key: replace(test, p_holm=p) for (key, test), p in zip(tests.items(), p_holm, strict=True)
    }


def compare(model: Predictions, reference: Predictions, weights: np.ndarray) -> Comparison | None:
    """Paired comparison; None if no patient was predicted by both.

    For accuracy and cross-entropy a patient counts once for each fold that they are tested in, with
    the mean over seeds. The AUC is the mean over the runs of the folds that both have.
    """
    hits = _Gaps.of(model, reference, weights, lambda predictions: predictions.hits)
    if hits is None:
        return None
    losses = _Gaps.of(model, reference, weights, lambda predictions: predictions.losses)
    accuracy = replace(hits.difference(bounded=True), mcnemar=hits.mcnemar(model, reference))
    return Comparison(accuracy, compare_auc(model, reference, weights), losses.difference())


def compare_auc(
    model: Predictions, reference: Predictions, weights: np.ndarray
) -> Difference | None:
    """AUC of a model minus that of the reference on the same patients and folds.

    None if a class has no patient.
    """
    return compare_score(model, reference, weights, auc)


def compare_score(
    model: _Predicted,
    reference: _Predicted,
    weights: np.ndarray,
    score: Callable[[_Predicted, np.ndarray], np.ndarray],
) -> Difference | None:
    """A score of a model minus that of the reference on the same patients and folds.

    Args:
        model, reference: predictions, of classes or of survival.
        weights: of the bootstrap, (R, patients).
        score: (R,) of predictions and weights.

    Returns:
        None if no patient was predicted by both, or one of the models has no such score.
    """
    found = paired_draws(model, reference, weights, score)
    return None if found is None else found.difference()


@dataclass(frozen=True)
class PairedDraws:
    """A score of a model minus that of another: of all patients, and of each resample, (R,).

    ``patients`` is how many both predicted.
    """

    value: float
    draws: np.ndarray
    patients: int

    def difference(self) -> Difference | None:
        """With interval and p; None if the value, or every draw, is not finite."""
        found = estimate(self.value, self.draws)
        if found is None:
            return None
        p = _two_sided(self.draws)
        return Difference(self.value, found.low, found.high, p, p, self.patients)

    @staticmethod
    def mean(of_cohorts: Sequence[PairedDraws]) -> PairedDraws:
        """The mean over cohorts that were drawn independently of each other."""
        return PairedDraws(
            float(np.mean([one.value for one in of_cohorts])),
            np.mean([one.draws for one in of_cohorts], axis=0),
            sum(one.patients for one in of_cohorts),
        )


def paired_draws(
    model: _Predicted,
    reference: _Predicted,
    weights: np.ndarray,
    score: Callable[[_Predicted, np.ndarray], np.ndarray],
) -> PairedDraws | None:
    """What :func:`compare_score` makes its interval of; None if both share no patient."""
    mine, theirs = _in_both(model, reference), _in_both(reference, model)
    if mine is None:
        return None
    once = np.ones((1, weights.shape[1]))
    value = float((score(mine, once) - score(theirs, once))[0])
    draws = np.concatenate([score(mine, some) - score(theirs, some) for some in in_blocks(weights)])
    return PairedDraws(value, draws, len(np.unique(mine.patient)))


def _in_both(model: _Predicted, other: _Predicted) -> _Predicted | None:
    """The predictions of a model for the patients and folds that another one has too."""
    folds = 1 + max(model.split.max(), other.split.max())
    mine, theirs = (p.patient * folds + p.split for p in (model, other))
    both = np.isin(mine, theirs)
    return model.chosen(both) if both.any() else None


@dataclass(frozen=True)
class _Gaps:
    """Differences between two models in the mean of a value that each prediction has.

    Attributes:
        gap: (patients,) sum over the folds of both.
        count: (patients,) folds of both.
        draws: (R,) the mean difference of each resample.
    """

    gap: np.ndarray
    count: np.ndarray
    draws: np.ndarray

    @classmethod
    def of(
        cls,
        model: Predictions,
        reference: Predictions,
        weights: np.ndarray,
        values: Callable[[Predictions], np.ndarray],
    ) -> _Gaps | None:
        """None if no patient, or no patient of any resample, was predicted by both."""
        patients = weights.shape[1]
        folds = 1 + max(model.split.max(), reference.split.max())
        mine, theirs = (_by_fold(p, values(p), patients, folds) for p in (model, reference))
        both = np.isfinite(mine) & np.isfinite(theirs)  # (patients, folds)
        gap, count = np.where(both, mine - theirs, 0.0).sum(1), both.sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            draws = (weights @ gap) / (weights @ count)
        return cls(gap, count, draws) if np.isfinite(draws).any() else None

    def difference(self, bounded: bool = False) -> Difference:
        """``bounded`` values lie in 0 … 1, and have an interval even if all differ alike."""
        value, patients = float(self.gap.sum() / self.count.sum()), int((self.count > 0).sum())
        otherwise = (lambda: of_difference(value, patients)) if bounded else None
        found, p = estimate(value, self.draws, otherwise), _two_sided(self.draws)
        return Difference(found.value, found.low, found.high, p, p, patients)

    def mcnemar(self, model: Predictions, reference: Predictions) -> McNemar | None:
        """None unless each patient was predicted once by each model."""
        if not len(model) == len(reference) == self.count.sum() or self.count.max() > 1:
            return None
        only_this, only_reference = int((self.gap > 0).sum()), int((self.gap < 0).sum())
        p = mcnemar_exact(only_this, only_reference)
        return McNemar(only_this, only_reference, p, p)


def _two_sided(draws: np.ndarray) -> float:
    """Twice the smaller share of resampled differences on one side of zero, zero included.

    It is the level at which the percentile interval begins to exclude zero.
    """
    draws = draws[np.isfinite(draws)]
    tolerance = 1e-12  # sums of a third and two thirds are zero only to rounding
    tail = min((draws <= tolerance).sum(), (draws >= -tolerance).sum())
    return float(min(1.0, 2 * (tail + 1) / (len(draws) + 1)))


def _by_fold(predictions: Predictions, values: np.ndarray, patients: int, folds: int) -> np.ndarray:
    """(patients, folds), mean over seeds; NaN where there is no prediction."""
    unit = predictions.patient * folds + predictions.split
    count = np.bincount(unit, minlength=patients * folds)
    total = np.bincount(unit, weights=values, minlength=patients * folds)
    with np.errstate(invalid="ignore"):
        return (total / count).reshape(patients, folds)


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
