"""The facts that every checkpoint of a run stores beside its weights."""

from __future__ import annotations

from typing import Any

from gimp_fast.data import Cohort
from gimp_fast.training.config import TrainConfig
from gimp_fast.training.covariate_scaling import CovariateScaler
from gimp_fast.training.scaling import GeneScaler
from gimp_fast.training.stage import StageContext


def provenance_of(
    config: TrainConfig,
    cohort: Cohort,
    split_name: str,
    context: StageContext,
    covariates: CovariateScaler | None,
) -> dict[str, Any]:
    """What the model is and predicts, what it reads, and the cohort that it is trained on."""
    return {
        "method": config.method,
        "model": context.model.config.model_dump(mode="json"),
        **({"covariates": covariates.facts()} if covariates else {}),
        **_harmonise(context.reader.scaler),
        **_target(config, context),
        "cohort": {
            "name": cohort.name,
            "synthetic": cohort.synthetic,
            "fingerprint": cohort.fingerprint,
            "split": split_name,
            "classes": list(cohort.classes_of(context.reader.target)),
            **_genes(config, cohort, context.reader.scaler),
            "expression": cohort.expression_facts,
            "expression_transform": cohort.expression_transform,
            "encoder": cohort.encoder,
            "mpp": cohort.mpp,
            "patch_size": cohort.patch_size,
            "patch_order": cohort.patch_order,
        },
    }


def _harmonise(scaler: GeneScaler | None) -> dict[str, Any]:
    """How genes are put on one scale; nothing if they are not."""
    if scaler is None or scaler.harmonise == "none":
        return {}
    return {"gene_harmonise": scaler.harmonise}


def _target(config: TrainConfig, context: StageContext) -> dict[str, Any]:
    """What is predicted; nothing for the labels alone."""
    if context.reader.target is None:
        return {}
    name = ", ".join(config.target_names)
    return {"target": {"name": name, **context.model.target.facts()}}


def _genes(config: TrainConfig, cohort: Cohort, scaler: GeneScaler | None) -> dict[str, Any]:
    """The ordered genes that the model reads; needed to use it on new patients."""
    if scaler is None:
        return {"gene_ids": [], "gene_names": [], "gene_sets": {}}
    columns = range(len(cohort.gene_ids)) if scaler.columns is None else scaler.columns
    return {
        "gene_ids": [cohort.gene_ids[i] for i in columns],
        "gene_names": [cohort.gene_names[i] for i in columns],
        "gene_sets": {name: list(columns) for name, columns in config.sets_of(cohort).items()},
    }
