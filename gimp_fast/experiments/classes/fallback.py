"""RNA alone as a fallback of a model of slides and RNA: one rule, for every method.

Slides can mislead at hospitals that training did not see. The rule mixes the log-probabilities of
the model, l, with those of a model of RNA, r, as w l + (1 − w) r, with the w of 0, 0.1 … 1 whose
cross-entropy on the validation patients is smallest. GiMP's ``fusion=validated`` is this rule with
its own gene classifier.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gimp_fast.evaluation.rates import SMALLEST_PROBABILITY, cross_entropy
from gimp_fast.experiments.mixtures import WEIGHTS, Mixed, rows_of_fallback
from gimp_fast.runs.records import CasePredictions


def mix(model: CasePredictions, rna: CasePredictions) -> Mixed:
    """The model with RNA as its fallback; patients without RNA keep the model's prediction.

    Both are of one split. Of equally good weights the smallest is taken, which uses slides least.
    """
    rows = rows_of_fallback(model, rna)
    has_rna = rows >= 0
    ends = [np.log(np.clip(model.probabilities, SMALLEST_PROBABILITY, None))]
    other = np.log(np.clip(rna.probabilities[rows], SMALLEST_PROBABILITY, None))
    ends.insert(0, np.where(has_rna[:, None], other, ends[0]))
    validation = model.split == "val"

    def mixed(weight: float) -> np.ndarray:
        logits = (1 - weight) * ends[0] + weight * ends[1]
        scores = np.exp(logits - logits.max(1, keepdims=True))
        return scores / scores.sum(1, keepdims=True)

    losses = [cross_entropy(mixed(w)[validation], model.label[validation]) for w in WEIGHTS]
    weight = WEIGHTS[int(np.argmin(losses))]
    probabilities = mixed(weight)
    changes = {"probabilities": probabilities, "predicted": probabilities.argmax(1)}
    return Mixed(replace(model, **changes), weight)
