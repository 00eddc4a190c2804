"""The scalers of a run: of genes and of patch embeddings, fitted on its training patients."""

from __future__ import annotations

import numpy as np

from gimp_fast.data import Cohort
from gimp_fast.data.cohort_truth import Asked
from gimp_fast.errors import GimpError
from gimp_fast.training.config import TrainConfig
from gimp_fast.training.scaling import GeneScaler, check_gaps
from gimp_fast.training.slide_scaling import SlideScaler


def fit_gene_scaler(config: TrainConfig, cohort: Cohort, split_name: str) -> GeneScaler:
    """GimpError if the cohort is for prediction, or nobody to train on has RNA."""
    if cohort.missing_genes:
        raise GimpError(
            f"{cohort.path}: {len(cohort.missing_genes)} genes of the list it was aligned to are "
            "missing; such a cohort is for prediction, not for training"
        )
    if config.sets_of(cohort) and config.most_variable_genes:
        raise GimpError(
            "most_variable_genes: the cohort's genes come in sets, which stay whole; expected "
            "null, or gene_groups=consecutive"
        )
    cases = [case for case in cohort.split(split_name)["train"] if cohort.has_expression(case)]
    if not cases:
        raise GimpError(f"{cohort.path}: split '{split_name}' trains on no patient with RNA")
    values = cohort.expression(cases)
    check_gaps(values, cohort.gene_ids, config.gene_scaling, f"{cohort.path}, {split_name}")
    return GeneScaler.fit(
        values,
        scaling=config.gene_scaling,
        most_variable=config.most_variable_genes,
        limit=config.gene_limit,
        harmonise=config.gene_harmonise,
    )


def fit_slide_scaler(
    strength: float, cohort: Cohort, split_name: str, target: Asked = None
) -> SlideScaler:
    """From the training patients whose target, or for None label, is known.

    Hospitals are compared within a class; where the target has none, among all patients. Of several
    targets, the first that has classes counts.

    Raises:
        GimpError: nobody to train on has slides, or hospitals cannot be compared.
    """
    training = cohort.split(split_name)["train"]
    if isinstance(target, tuple):
        target = next((one for one in target if cohort.classes_of(one)), target)
    cases = [case for case in training if cohort.has_slides(case) and cohort.knows(case, target)]
    if not cases:
        raise GimpError(f"{cohort.path}: split '{split_name}' trains on no patient with slides")
    labels = np.zeros(len(cases), np.int64)
    if cohort.classes_of(target):
        labels = cohort.truth(cases, target)
    sites = [cohort.site(case) for case in cases]
    return SlideScaler.fit(cohort.mean_patches(cases), labels, sites, strength)
