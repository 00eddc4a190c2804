"""What is recorded of a model that is validated."""

from __future__ import annotations

from typing import Any

from gimp_fast.inference.model import TrainedModel


def about_model(trained: TrainedModel) -> dict[str, Any]:
    """Source, method, inputs, cohort, split, fingerprint and seed."""
    cohort, run = trained.trained_on, trained.facts.get("training", {})
    return {
        "source": str(trained.source),
        "method": trained.method,
        "modalities": trained.modalities,
        "covariates": list(trained.covariates.names) if trained.covariates else [],
        "cohort": cohort["name"],
        "split": cohort["split"],
        "fingerprint": cohort["fingerprint"],
        "seed": run.get("seed"),
        "epoch": trained.facts.get("epoch"),
        "gimp_fast": run.get("gimp_fast"),
        "synthetic": trained.synthetic,
    }
