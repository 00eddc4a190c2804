"""Survival predictions of trained models: their scores with intervals, and paired comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gimp_fast.evaluation.comparison import Difference, compare_score, corrected
from gimp_fast.evaluation.intervals import Estimate, estimate
from gimp_fast.evaluation.kaplan_meier import Curve, Outcomes
from gimp_fast.evaluation.rates import in_blocks, mean_over_runs
from gimp_fast.evaluation.survival import brier, dynamic_auc, harrell_c, over_horizons, uno_c


@dataclass(frozen=True)
class SurvivalPredictions:
    """n predictions of patients, by one trained model or several.

    Attributes:
        patient, split, run: (n,) int. A run is a trained model: one split and one seed.
        outcomes: of the n rows.
        risk: (n,), higher for an earlier event; comparable within a run only.
        survival: (n, T) probability to outlast each horizon.
        horizons: (T,), increasing.
    """

    patient: np.ndarray
    split: np.ndarray
    run: np.ndarray
    outcomes: Outcomes
    risk: np.ndarray
    survival: np.ndarray
    horizons: np.ndarray

    def __len__(self) -> int:
        return len(self.patient)

    def by_run(self) -> list[SurvivalPredictions]:
        """The predictions of each trained model."""
        return [self.chosen(self.run == run) for run in np.unique(self.run)]

    def chosen(self, rows: np.ndarray) -> SurvivalPredictions:
        """Some of the predictions, by (n,) bool."""
        return SurvivalPredictions(
            self.patient[rows],
            self.split[rows],
            self.run[rows],
            self.outcomes.chosen(rows),
            self.risk[rows],
            self.survival[rows],
            self.horizons,
        )


def survival_metrics(
    predictions: SurvivalPredictions, weights: np.ndarray, censoring: Mapping[int, Curve]
) -> dict[str, Estimate | None]:
    """Every score of :func:`survival_scores`, with its 95 % interval over bootstrap weights.

    Args:
        predictions: of one model or several.
        weights: (R, patients).
        censoring: split -> censoring distribution of its training patients.

    Returns:
        name -> estimate; None for a score that no run, or no resample, has.
    """
    once = survival_scores(predictions, np.ones((1, weights.shape[1])), censoring)
    drawn = [survival_scores(predictions, some, censoring) for some in in_blocks(weights)]
    return {
        name: estimate(float(value), np.concatenate([block[name] for block in drawn]))
        for name, (value,) in once.items()
    }


def survival_scores(
    predictions: SurvivalPredictions, weights: np.ndarray, censoring: Mapping[int, Curve]
) -> dict[str, np.ndarray]:
    """Scores, mean over runs, once for each row of weights (R, patients).

    Risks of different models share no scale, so each run has its own scores. A run counts for those
    that its patients define.

    Returns:
        c_index (Harrell's), uno_c (of events before the last horizon), mean_auc, auc_at_<horizon>,
        brier_at_<horizon> and, of two horizons or more, integrated_brier -> (R,).
    """
    runs = [_scores_of_run(run, weights, censoring) for run in predictions.by_run()]
    return {name: mean_over_runs([scores[name] for scores in runs]) for name in runs[0]}


def _scores_of_run(
    run: SurvivalPredictions, weights: np.ndarray, censoring: Mapping[int, Curve]
) -> dict[str, np.ndarray]:
    outcomes, horizons, drawn = run.outcomes, run.horizons, weights[:, run.patient]
    curve = censoring[int(run.split[0])]
    areas, mean_area = dynamic_auc(outcomes, run.risk, horizons, curve, drawn)
    errors = brier(outcomes, run.survival, horizons, curve, drawn)
    scores = {
        "c_index": harrell_c(outcomes, run.risk, drawn),
        "uno_c": uno_c(outcomes, run.risk, curve, drawn, tau=float(horizons[-1])),
        "mean_auc": mean_area,
    }
    for horizon, area, error in zip(horizons, areas.T, errors.T, strict=True):
        name = np.format_float_positional(horizon, trim="-")
        scores |= {f"auc_at_{name}": area, f"brier_at_{name}": error}
    if len(horizons) > 1:
        scores["integrated_brier"] = over_horizons(errors, horizons)
    return scores


def concordance(predictions: SurvivalPredictions, weights: np.ndarray) -> np.ndarray:
    """Harrell's C of each run, mean over runs, of weights (R, patients): (R,)."""
    return mean_over_runs(
        [harrell_c(run.outcomes, run.risk, weights[:, run.patient]) for run in predictions.by_run()]
    )


def compare_c(
    model: SurvivalPredictions, reference: SurvivalPredictions, weights: np.ndarray
) -> Difference | None:
    """Harrell's C of a model minus that of the reference on the same patients and folds.

    None if no patient was predicted by both, or no pair of them is comparable.
    """
    return compare_score(model, reference, weights, concordance)


def compare_all_c(
    models: Mapping[str, SurvivalPredictions], reference: str, weights: np.ndarray
) -> dict[str, Difference]:
    """Each model against the reference, with p values corrected for the number of comparisons.

    Models that cannot be compared are left out; so are all if there is no reference.
    """
    if reference not in models:
        return {}
    tests = {
        key: test
        for key, model in models.items()
        if key != reference and (test := compare_c(model, models[reference], weights))
    }
    return corrected(tests)
