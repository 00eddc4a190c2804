"""Survival on new patients: concordance, calibration at horizons, slope, decision curves."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from gimp_fast.evaluation.intervals import Estimate, estimate
from gimp_fast.evaluation.kaplan_meier import (
    Outcomes,
    calibration,
    censoring_distribution,
    kaplan_meier,
)
from gimp_fast.evaluation.named_curves import NamedCurve, curves_at_horizons
from gimp_fast.evaluation.slopes import cox_slope
from gimp_fast.evaluation.survival_predictions import (
    SurvivalPredictions,
    concordance,
    survival_scores,
)
from gimp_fast.external.kinds import Kind, Sample
from gimp_fast.external.result import AtHorizon, Calibration

GROUPS = 5  # of predicted survival, whose calibration is drawn
_EDGE = 1e-7  # predicted survival is kept so far from 0 and 1, for its logarithm


class TimeToEvent(Kind):
    """Survival with these horizons, rising, in this unit."""

    titles: ClassVar[dict[str, str]] = {
        "c_index": "Harrell's C",
        "uno_c": "Uno's C",
        "integrated_brier": "Integrated Brier score",
    }
    main = "c_index"
    by_chance = 0.5
    curved = ("c_index",)
    tolerance: ClassVar[dict[str, float]] = {"c_index": 0.01}
    words = (
        "Harrell's C is the share of comparable pairs of patients whose risks are in the right "
        "order. Uno's C counts events before the last horizon and makes up for censoring. The "
        "integrated Brier score is the mean squared error of predicted survival from the first "
        "horizon to the last; 0 is best. Both use the censoring of the patients who are scored, "
        "here and on the own test patients, so they can differ a little from those of the run's "
        "report, which uses that of its training patients."
    )

    def __init__(self, horizons: tuple[float, ...], unit: str):
        self.horizons, self.unit = np.array(horizons, np.float64), unit

    def scores(self, sample: Sample, weights: np.ndarray) -> dict[str, np.ndarray]:
        predictions = self._predictions(sample)
        censoring = {
            int(run): censoring_distribution(_outcomes(sample.truth[sample.run == run]))
            for run in np.unique(sample.run)
        }
        found = survival_scores(predictions, weights, censoring)
        return {name: found[name] for name in self.titles if name in found}

    def main_score(self, sample: Sample, weights: np.ndarray) -> np.ndarray:
        return concordance(self._predictions(sample), weights)

    def counts(self, truth: np.ndarray) -> dict[str, int]:
        return {"events": int((truth[:, 1] > 0).sum())}

    def _too_few(self, fewest: int) -> str:
        return f"fewer than {fewest} events"

    def calibration(
        self, sample: Sample, scaled: np.ndarray | None, weights: np.ndarray
    ) -> Calibration:
        outcomes = _outcomes(sample.truth)
        survival = sample.predicted[:, 1:].clip(0, 1)
        log_hazard = np.log(-np.log(survival[:, -1].clip(_EDGE, 1 - _EDGE)))
        once = cox_slope(outcomes, log_hazard, np.ones((1, len(outcomes))))
        slope = estimate(float(once[0]), cox_slope(outcomes, log_hazard, weights))
        found = [
            self._at(horizon, outcomes, of_horizon, weights)
            for horizon, of_horizon in zip(self.horizons, survival.T, strict=True)
        ]
        return Calibration(slope=slope, horizons=tuple(found))

    def _at(
        self, horizon: float, outcomes: Outcomes, survival: np.ndarray, weights: np.ndarray
    ) -> AtHorizon:
        text = self._text(horizon)
        if horizon >= outcomes.time.max():
            return AtHorizon(horizon, text, reason=f"nobody was followed for longer than {text}")
        curve, events = kaplan_meier(outcomes), 1 - survival
        low, high = curve.interval_at(np.array([horizon]))
        observed = Estimate(1 - float(curve.at(horizon)), 1 - float(high[0]), 1 - float(low[0]))
        predicted = estimate(float(events.mean()), weights @ events / weights.sum(1))
        groups = calibration(outcomes, survival, horizon, GROUPS)
        return AtHorizon(horizon, text, predicted, observed, groups)

    def curves(self, sample: Sample, weights: np.ndarray) -> tuple[NamedCurve, ...]:
        horizons = [(self._text(horizon), horizon) for horizon in self.horizons.tolist()]
        outcomes, survival = _outcomes(sample.truth), sample.predicted[:, 1:]
        return curves_at_horizons(outcomes, survival, horizons, weights)

    def facts(self) -> dict[str, Any]:
        return {"unit": self.unit, "horizons": self.horizons.tolist()}

    def _text(self, horizon: float) -> str:
        return f"{horizon:g} {self.unit}".rstrip()

    def _predictions(self, sample: Sample) -> SurvivalPredictions:
        return SurvivalPredictions(
            sample.patient,
            sample.run,
            sample.run,
            _outcomes(sample.truth),
            sample.predicted[:, 0],
            sample.predicted[:, 1:].clip(0, 1),
            self.horizons,
        )


def _outcomes(truth: np.ndarray) -> Outcomes:
    return Outcomes(truth[:, 0], truth[:, 1] > 0)
