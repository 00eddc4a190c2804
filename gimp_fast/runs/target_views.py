"""A run of several targets, seen as the runs of each of them."""

from __future__ import annotations

from functools import cached_property

from gimp_fast.runs.outcome_predictions import OutcomePredictions
from gimp_fast.runs.patient_arrays import CasePredictions
from gimp_fast.runs.records import Metrics, Run, TargetSummary


class TargetView(Run):
    """A run whose metrics and predictions are those of one of its targets.

    Args:
        run: of several targets.
        name: of one of them.
    """

    def __init__(self, run: Run, name: str):
        super().__init__(run.path)
        object.__setattr__(self, "run", run)
        object.__setattr__(self, "name", name)

    @cached_property
    def metrics(self) -> Metrics:
        whole = self.run.metrics
        own = whole.targets[self.name]
        cohort = whole.cohort.model_copy(
            update={"classes": own.classes, "n": own.n, "by_class": own.by_class}
        )
        summary = TargetSummary(**{key: getattr(own, key) for key in TargetSummary.model_fields})
        scores = {"val": own.val, "test": own.test}
        return whole.model_copy(
            update={"cohort": cohort, "target": summary, "targets": None, **scores}
        )

    @cached_property
    def predictions(self) -> CasePredictions | OutcomePredictions:
        """Of the patients whose value is known."""
        return self.run.predictions.known[self.name]


def views_of(run: Run) -> dict[str, Run]:
    """Name of a target -> the run seen as its own; of a run of one target, ``""`` and the run."""
    targets = run.metrics.targets
    return {name: TargetView(run, name) for name in targets} if targets else {"": run}
