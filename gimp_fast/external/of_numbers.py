"""Numbers on new patients: error, correlation, and the line from predicted to true."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gimp_fast.evaluation.intervals import estimate
from gimp_fast.evaluation.rates import mean_over_runs
from gimp_fast.evaluation.regression import regression_scores
from gimp_fast.evaluation.slopes import linear_slope
from gimp_fast.external.kinds import Kind, Sample
from gimp_fast.external.result import Calibration


class Numbers(Kind):
    """Numbers."""

    titles: ClassVar[dict[str, str]] = {
        "mean_absolute_error": "Mean absolute error",
        "correlation": "Correlation",
    }
    main = "mean_absolute_error"
    bounds = None
    curved = ("mean_absolute_error", "correlation")
    of_errors = frozenset({"mean_absolute_error"})
    words = (
        "The mean absolute error is in the unit of the target; 0 is best. The correlation is "
        "Pearson's; it depends on how much the patients differ from each other."
    )

    def scores(self, sample: Sample, weights: np.ndarray) -> dict[str, np.ndarray]:
        found = []
        for run in np.unique(sample.run):
            one = sample.chosen(sample.run == run)
            drawn = weights[:, one.patient]
            with np.errstate(invalid="ignore", divide="ignore"):  # none of a group was drawn
                found.append(regression_scores(one.predicted[:, 0], one.truth, drawn))
        return {name: mean_over_runs([scores[name] for scores in found]) for name in self.titles}

    def main_score(self, sample: Sample, weights: np.ndarray) -> np.ndarray:
        return self.scores(sample, weights)[self.main]

    def counts(self, truth: np.ndarray) -> dict[str, int]:
        return {}

    def calibration(
        self, sample: Sample, scaled: np.ndarray | None, weights: np.ndarray
    ) -> Calibration:
        predicted, truth = sample.predicted[:, 0], sample.truth
        once = linear_slope(predicted, truth, np.ones((1, len(truth))))
        drawn = linear_slope(predicted, truth, weights)
        pairs = zip(once, drawn, strict=True)
        slope, intercept = (estimate(float(value[0]), draws) for value, draws in pairs)
        error = predicted - truth
        mean = estimate(float(error.mean()), weights @ error / weights.sum(1))
        return Calibration(slope=slope, intercept=intercept, mean_error=mean)
