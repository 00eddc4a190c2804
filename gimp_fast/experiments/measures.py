"""What trials go by: one number of the validation patients, for classes and for survival."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gimp_fast.evaluation.kaplan_meier import Outcomes
from gimp_fast.evaluation.rates import cross_entropy
from gimp_fast.evaluation.survival import harrell_c
from gimp_fast.runs.outcome_predictions import OutcomePredictions
from gimp_fast.runs.records import CasePredictions


@dataclass(frozen=True)
class Measure:
    """A number of validation patients that chooses among trials.

    Attributes:
        name: in ``results.json``.
        words: as in "by the cross-entropy".
        of: the number, of their predictions.
        sign: 1 if less is better, −1 if more is.
    """

    name: str
    words: str
    of: Callable[[Any], float]
    sign: int

    def loss(self, value: float | None) -> float | None:
        """The smaller, the better; None for a trial that failed or whose number is not finite."""
        if value is None or not math.isfinite(value):
            return None
        return self.sign * value


def _cross_entropy(validation: CasePredictions) -> float:
    return cross_entropy(validation.probabilities, validation.label)


def concordance_of(predictions: OutcomePredictions) -> float:
    """Harrell's C of recorded predictions; NaN if no two patients are comparable."""
    try:
        return float(harrell_c(outcomes_in(predictions), predictions.predicted["risk"]))
    except ValueError:
        return math.nan


def outcomes_in(predictions: OutcomePredictions) -> Outcomes:
    """Times and events of recorded predictions."""
    return Outcomes(predictions.truth["time"], predictions.truth["event"] > 0)


CROSS_ENTROPY = Measure("validation_cross_entropy", "the cross-entropy", _cross_entropy, 1)
C_INDEX = Measure("validation_c_index", "the C-index", concordance_of, -1)
