"""Classes on new patients: rates, calibration before and after scaling, decision curves."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gimp_fast.evaluation import rates
from gimp_fast.evaluation.calibration import brier_of_patients, reliability
from gimp_fast.evaluation.intervals import Estimate, estimate
from gimp_fast.evaluation.named_curves import NamedCurve, curves_of_classes
from gimp_fast.evaluation.rates import Predictions, score_interval, weighted_rates
from gimp_fast.external.kinds import Kind, Sample
from gimp_fast.external.result import Calibration, Probabilities


class Classes(Kind):
    """Classes of these names."""

    titles: ClassVar[dict[str, str]] = {
        "accuracy": "Accuracy",
        "balanced_accuracy": "Balanced accuracy",
        "auc": "AUC",
        "cross_entropy": "Cross-entropy",
    }
    main = "auc"
    by_chance = 0.5
    curved = ("accuracy", "auc", "cross_entropy")
    of_errors = frozenset({"cross_entropy"})
    tolerance: ClassVar[dict[str, float]] = {"accuracy": 0.005, "auc": 0.005}
    words = (
        "Accuracy and balanced accuracy are of the class with the largest probability. The AUC of "
        "more than two classes is the mean over classes, each against the rest. The cross-entropy "
        "is in nats for a patient; 0 is best."
    )

    def __init__(self, classes: tuple[str, ...]):
        self.classes = classes

    def scores(self, sample: Sample, weights: np.ndarray) -> dict[str, np.ndarray]:
        predictions = _predictions(sample)
        found = weighted_rates(predictions, weights)
        found["cross_entropy"] = _mean(predictions.losses, sample, weights)
        return {name: found[name] for name in self.titles}

    def main_score(self, sample: Sample, weights: np.ndarray) -> np.ndarray:
        return rates.auc(_predictions(sample), weights)

    def counts(self, truth: np.ndarray) -> dict[str, int]:
        found = np.bincount(truth.astype(np.int64), minlength=len(self.classes))
        return dict(zip(self.classes, found.tolist(), strict=True))

    def without_spread(self, name: str, value: float, sample: Sample) -> tuple[float, float] | None:
        if name == "cross_entropy":
            return None
        return score_interval(name, value, _predictions(sample))

    def calibration(
        self, sample: Sample, scaled: np.ndarray | None, weights: np.ndarray
    ) -> Calibration:
        truth = sample.truth.astype(np.int64)
        before = _probabilities(sample.predicted, truth, weights)
        if scaled is None:
            return Calibration(before=before)
        after = _probabilities(scaled, truth, weights)
        changes = {
            name: _estimate(of(scaled, truth) - of(sample.predicted, truth), weights)
            for name, of in (("brier", brier_of_patients), ("cross_entropy", _losses))
        }
        return Calibration(
            before=before,
            after=after,
            brier_change=changes["brier"],
            cross_entropy_change=changes["cross_entropy"],
        )

    def curves(self, sample: Sample, weights: np.ndarray) -> tuple[NamedCurve, ...]:
        return curves_of_classes(sample.predicted, sample.truth, self.classes, weights)


def _predictions(sample: Sample) -> Predictions:
    one = Predictions.of_one_model(sample.predicted, sample.truth.astype(np.int64))
    places = sample.patient, sample.run, sample.run
    return Predictions(*places, one.label, one.predicted, one.probabilities)


def _mean(values: np.ndarray, sample: Sample, weights: np.ndarray) -> np.ndarray:
    """(R,) mean of (rows,) values."""
    drawn = weights[:, sample.patient]
    with np.errstate(invalid="ignore", divide="ignore"):
        return drawn @ values / drawn.sum(1)


def _losses(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return Predictions.of_one_model(probabilities, truth).losses


def _probabilities(
    probabilities: np.ndarray, truth: np.ndarray, weights: np.ndarray
) -> Probabilities:
    bins = reliability(probabilities.max(1), probabilities.argmax(1) == truth)
    of_patients = brier_of_patients(probabilities, truth), _losses(probabilities, truth)
    return Probabilities(bins, *(_estimate(values, weights) for values in of_patients))


def _estimate(values: np.ndarray, weights: np.ndarray) -> Estimate:
    """The mean of (n,) values with its interval."""
    return estimate(float(values.mean()), weights @ values / weights.sum(1))
