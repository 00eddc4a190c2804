"""What a run records of several targets: the predictions and the scores of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gimp_fast.data.class_checks import count_classes
from gimp_fast.data.names import PARTS
from gimp_fast.runs.records import TargetScores
from gimp_fast.runs.several_predictions import SeveralPredictions
from gimp_fast.targets.several import Several
from gimp_fast.training.config import TrainConfig
from gimp_fast.training.evaluate_classes import evaluated_predictions, scores_of
from gimp_fast.training.evaluate_outcomes import (
    outcome_predictions,
    outcome_scores,
    target_summary,
)


def several_predictions(
    target: Several,
    cases: Sequence[str],
    parts: np.ndarray,
    truth: np.ndarray,
    predictions: np.ndarray,
) -> SeveralPredictions:
    """The predictions that a run records: those of validation, then those of test.

    Args:
        target: what was asked.
        cases: ids of n patients.
        parts: (n,) unicode, their part of the split.
        truth: (n, ·) float64, NaN where not known.
        predictions: (n, ·) of the target.
    """
    found = {}
    for place, member in enumerate(target.members):
        said, answer = target.predictions_of(place, predictions), truth[:, target.truths[place]]
        if member.classes:
            labels = np.nan_to_num(answer[:, 0], nan=-1).astype(np.int64)
            found[member.name] = evaluated_predictions(member.classes, cases, parts, labels, said)
        else:
            found[member.name] = outcome_predictions(member.target, cases, parts, answer, said)
    return SeveralPredictions(found)


def several_scores(
    target: Several,
    parts: np.ndarray,
    truth: np.ndarray,
    predictions: np.ndarray,
    config: TrainConfig,
) -> dict[str, TargetScores]:
    """Name of a target -> its scores of the patients whose value is known."""
    scores = {}
    for place, member in enumerate(target.members):
        rows, answer = target.truth_of(place, truth)
        said, of = target.predictions_of(place, predictions)[rows], parts[rows]
        facts = target_summary(member.name, member.target, of, said).as_dict()
        facts["n"] = {part: int((of == part).sum()) for part in PARTS}
        if member.classes:
            facts["classes"] = member.classes
            names = {str(row): member.classes[label] for row, label in enumerate(answer)}
            facts["by_class"] = count_classes(names, dict(zip(names, of.tolist(), strict=True)))
            cases = list(names)
            known = evaluated_predictions(member.classes, cases, of, answer, said)
            facts |= scores_of(known, config.bootstrap, config.seed)
        else:
            facts |= outcome_scores(member.target, of, answer, said, config.bootstrap, config.seed)
        scores[member.name] = TargetScores(**facts)
    return scores
