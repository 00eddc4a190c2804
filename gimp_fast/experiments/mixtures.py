"""The rows of a table with their runs, those included that mix the predictions of two others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gimp_fast.experiments.finished import Finished
from gimp_fast.experiments.plan import Mixture, Plan, PlannedRun

WEIGHTS = tuple(step / 10 for step in range(11))  # of a model beside its fallback


@dataclass(frozen=True)
class Mixed:
    """Predictions of all patients of a model, and the weight that it got beside its fallback."""

    predictions: Any
    weight: float


# Mixes the predictions of a model with those of its fallback.
Mix = Callable[[Any, Any], Mixed]


def rows_of_fallback(model: Any, fallback: Any) -> np.ndarray:
    """(n,) int: where the fallback predicts each patient of the model in the same part, or −1."""
    place = {key: row for row, key in enumerate(zip(fallback.split, fallback.case_id, strict=True))}
    keys = zip(model.split, model.case_id, strict=True)
    return np.array([place.get(key, -1) for key in keys])


def with_mixtures(
    table: str, plan: Plan, finished: Mapping[str, Finished], mix: Mix
) -> tuple[dict[str, tuple[PlannedRun, ...]], dict[str, Finished]]:
    """Row key -> its runs, and digest -> the run that is done; a mixture counts as a run.

    Args:
        table: its name.
        plan: that holds this table, at least.
        finished: digest -> the run, of those that are done.
        mix: the rule.
    """
    done = dict(finished)
    runs = {key: of_row for (name, key), of_row in plan.of_row.items() if name == table}
    for (name, key), pairs in plan.mixed.items():
        if name == table:
            runs[key] = tuple(pair.as_run(key) for pair in pairs)
            found = (_mixed(pair, key, finished, mix) for pair in pairs)
            done |= {one.run.digest: one for one in found if one is not None}
    return runs, done


def _mixed(pair: Mixture, key: str, finished: Mapping[str, Finished], mix: Mix) -> Finished | None:
    """The run of a row that mixes two; None unless both are finished."""
    if not {pair.model.digest, pair.fallback.digest} <= finished.keys():
        return None
    model = finished[pair.model.digest]
    found = mix(model.predictions, finished[pair.fallback.digest].predictions)
    changes = {"predictions": found.predictions, "weight": found.weight, "metrics": None}
    return replace(model, run=pair.as_run(key), **changes)
