"""What a run records of a target that is no class: its predictions and its scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gimp_fast.runs.outcome_predictions import OutcomePredictions
from gimp_fast.runs.records import TargetSummary
from gimp_fast.targets.base import Target

EVALUATED = ("val", "test")


def outcome_predictions(
    target: Target,
    cases: Sequence[str],
    parts: np.ndarray,
    truth: np.ndarray,
    predictions: np.ndarray,
) -> OutcomePredictions:
    """The predictions that a run records: those of validation, then those of test."""
    rows = np.concatenate([np.flatnonzero(parts == part) for part in EVALUATED])
    columns = truth[rows].reshape(len(rows), -1).T, target.reported(predictions[rows]).T
    names = target.truth_columns, target.prediction_columns
    tables = (dict(zip(keys, of, strict=True)) for keys, of in zip(names, columns, strict=True))
    return OutcomePredictions(np.array(cases)[rows], parts[rows], *tables)


def outcome_scores(
    target: Target,
    parts: np.ndarray,
    truth: np.ndarray,
    predictions: np.ndarray,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """``val`` and ``test`` of :class:`gimp_fast.runs.records.Metrics`."""
    training, scores = truth[parts == "train"], {}
    for part in EVALUATED:
        rows = parts == part
        scores[part] = target.evaluated(predictions[rows], truth[rows], training, resamples, seed)
    return scores


def target_summary(
    name: str, target: Target, parts: np.ndarray, predictions: np.ndarray
) -> TargetSummary:
    """What ``metrics.json`` says of the target."""
    facts = {"name": name, "kind": target.kind}
    if target.kind == "class":
        return TargetSummary(**facts)
    facts["truth_columns"] = target.truth_columns
    facts["prediction_columns"] = target.prediction_columns
    if target.kind == "survival":
        cut = float(np.median(predictions[parts == "train", 0]))
        facts |= {"unit": target.unit, "horizons": target.horizons, "risk_cut": cut}
    return TargetSummary(**facts)
