"""Cox's model of plain features as a fallback of a model of survival: one rule, for every method.

The rule mixes two risks, each standardised on the validation patients, as w m + (1 − w) f, with the
w of 0, 0.1 … 1 whose C-index on the validation patients is largest. Survival is mixed in the same
way, by the logarithm of the cumulated hazard at each horizon.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from gimp_fast.evaluation.survival import harrell_c
from gimp_fast.experiments.measures import outcomes_in
from gimp_fast.experiments.mixtures import WEIGHTS, Mixed, rows_of_fallback
from gimp_fast.runs.outcome_predictions import OutcomePredictions

_SMALLEST = 1e-6  # distance of a survival from 0 and 1


def mix(model: OutcomePredictions, fallback: OutcomePredictions) -> Mixed:
    """The model with its fallback; patients without one keep the model's risk, standardised.

    Both are of one split. Of equally good weights the smallest is taken.
    """
    rows = rows_of_fallback(model, fallback)
    has_fallback, validation = rows >= 0, model.split == "val"
    mine = _standardised(model.predicted["risk"], validation)
    other = _standardised(fallback.predicted["risk"], fallback.split == "val")[rows]
    other = np.where(has_fallback, other, mine)
    known = outcomes_in(model.of("val"))

    def concordance(weight: float) -> float:
        risk = weight * mine + (1 - weight) * other
        try:
            return float(harrell_c(known, risk[validation]))
        except ValueError:  # no two validation patients are comparable
            return math.nan

    found = np.nan_to_num([concordance(weight) for weight in WEIGHTS])
    weight = WEIGHTS[int(np.argmax(found))]
    predicted = {"risk": weight * mine + (1 - weight) * other}
    for name in model.predicted.keys() - {"risk"}:
        hazard = _log_hazard(model.predicted[name])
        its = np.where(has_fallback, _log_hazard(fallback.predicted[name])[rows], hazard)
        predicted[name] = np.exp(-np.exp(weight * hazard + (1 - weight) * its))
    ordered = {name: predicted[name] for name in model.predicted}
    return Mixed(replace(model, predicted=ordered), weight)


def _standardised(risk: np.ndarray, validation: np.ndarray) -> np.ndarray:
    spread = risk[validation].std()
    return (risk - risk[validation].mean()) / (spread if spread > 0 else 1.0)


def _log_hazard(survival: np.ndarray) -> np.ndarray:
    """Logarithm of the cumulated hazard, log(−log S)."""
    return np.log(-np.log(np.clip(survival, _SMALLEST, 1 - _SMALLEST)))
