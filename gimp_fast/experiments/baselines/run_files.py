"""The files that a plain baseline writes: those of a trained run, without a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import yaml

from gimp_fast.data import Cohort
from gimp_fast.runs.environment import environment
from gimp_fast.runs.folder import RunFolder
from gimp_fast.runs.outcome_predictions import OutcomePredictions
from gimp_fast.runs.records import CasePredictions, CohortSummary, Metrics, TargetSummary


def write_run(
    folder: RunFolder,
    cohort: Cohort,
    *,
    method: str,
    settings: Any,
    seed: int,
    parts: Mapping[str, list[str]],
    predictions: CasePredictions | OutcomePredictions,
    scores: Mapping[str, Any],
    target: TargetSummary | None = None,
) -> None:
    """Write predictions, settings, environment and metrics.

    Args:
        folder: of the run.
        cohort: that the patients are of.
        method: name of the baseline.
        settings: a dataclass with ``split`` and ``modalities``.
        seed: of the run; a baseline has no randomness.
        parts: ``"train"``, ``"val"`` and ``"test"`` -> patients who were read.
        predictions: of validation and test patients.
        scores: ``val`` and ``test`` of :class:`gimp_fast.runs.records.Metrics`.
        target: what was predicted, if it is not the label.
    """
    by_class = {} if target else {"by_class": cohort.class_counts(parts)}
    summary = CohortSummary(
        name=cohort.name,
        synthetic=cohort.synthetic,
        split=settings.split,
        classes=() if target else cohort.classes,
        n={part: len(cases) for part, cases in parts.items()},
        **by_class,
    )
    metrics = Metrics(
        method=method,
        modalities="both" if settings.modalities == "none" else settings.modalities,
        seed=seed,
        cohort=summary,
        best_epoch=None,
        **({} if target is None else {"target": target}),
        **scores,
    )
    folder.write_predictions(predictions)
    folder.write_config(yaml.safe_dump({"method": method, **_plain(asdict(settings))}))
    folder.write_environment(environment())
    folder.write_metrics(metrics)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Tuples as lists, which YAML can hold."""
    return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}
