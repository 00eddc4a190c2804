"""What plain baselines read of patients: the mean of the bag, and RNA."""

from __future__ import annotations

import numpy as np
import torch

from gimp_fast.data import Cohort
from gimp_fast.training.fit_scalers import fit_slide_scaler


def mean_patches(
    cohort: Cohort,
    cases: np.ndarray,
    *,
    shrinkage: float | None,
    split: str,
    target: str | None = None,
) -> np.ndarray:
    """(n, C), the mean patch of each patient; rows of NaN without slides.

    With ``shrinkage``, as a slide scaler leaves it that is fitted on the training patients of the
    split.
    """
    means = np.full((len(cases), cohort.feature_dim), np.nan)
    has = [cohort.has_slides(case) for case in cases]
    means[has] = cohort.mean_patches(cases[has])
    if shrinkage is not None:
        scaler = fit_slide_scaler(shrinkage, cohort, split, target)
        means = scaler(torch.from_numpy(means)).numpy().astype(np.float64)
    return means


def log_counts(cohort: Cohort, cases: np.ndarray) -> np.ndarray:
    """(n, 1), the logarithm of the number of patches of each patient; NaN without slides."""
    found = np.full((len(cases), 1), np.nan)
    for row, case in enumerate(cases):
        if cohort.has_slides(case):
            found[row] = np.log(cohort.bag(case).num_patches)
    return found


def expression(cohort: Cohort, cases: np.ndarray) -> np.ndarray:
    """(n, G), the genes of each patient; rows of NaN without RNA."""
    genes = np.full((len(cases), len(cohort.gene_ids)), np.nan)
    has = [cohort.has_expression(case) for case in cases]
    genes[has] = cohort.expression(cases[has])
    return genes
