"""Logistic regression on the mean of the bag, on RNA, or on both: what a deep model has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from gimp_fast.data import Cohort
from gimp_fast.data.class_checks import not_learnable
from gimp_fast.data.cohort import PARTS
from gimp_fast.errors import GimpError
from gimp_fast.evaluation.linear_probe import standardised_regression
from gimp_fast.experiments.baselines.features import expression, mean_patches
from gimp_fast.experiments.baselines.run_files import write_run
from gimp_fast.experiments.rows import LOGISTIC_REGRESSION
from gimp_fast.runs.folder import RunFolder
from gimp_fast.runs.records import CasePredictions
from gimp_fast.training.evaluate_classes import evaluated_predictions, scores_of


@dataclass(frozen=True)
class LogisticSettings:
    """``strength`` is scikit-learn's C, the inverse of the penalty.

    ``site_shrinkage`` is that of :class:`gimp_fast.training.slide_scaling.SlideScaler`.
    """

    modalities: str
    split: str
    strength: float = 0.05
    site_shrinkage: float | None = None

    def carry_out(self, cohort: Cohort, seed: int, folder: RunFolder) -> None:
        """Fit, predict, and write the files of a run."""
        fitted = logistic_regression(self, cohort)
        arrays = fitted.case_id, fitted.split, fitted.label, fitted.probabilities
        predictions = evaluated_predictions(cohort.classes, *arrays)
        write_run(
            folder, cohort, method=LOGISTIC_REGRESSION, settings=self, seed=seed,
            parts={part: fitted.case_id[fitted.split == part].tolist() for part in PARTS},
            predictions=predictions, scores=scores_of(predictions, resamples=100, seed=0),
        )  # fmt: skip


def logistic_regression(settings: LogisticSettings, cohort: Cohort) -> CasePredictions:
    """Predictions of all patients by a model of the training patients.

    Where both modalities are read, one that a patient lacks is the mean of the training patients.

    Raises:
        GimpError: a part has no patient with a modality that is read, or a class of another part
            has no training patient.
    """
    split = cohort.split(settings.split)
    cases = np.array([case for of_part in split.values() for case in of_part])
    parts = np.repeat(list(split), [len(of_part) for of_part in split.values()])
    table = _features(cohort, cases, settings)
    readable = np.isfinite(table).any(axis=1)
    cases, parts, table = cases[readable], parts[readable], table[readable]
    for part in PARTS:
        if part not in parts:
            raise GimpError(f"split '{settings.split}' has no patient in '{part}' to read")
    labels, training = np.array([cohort.label(case) for case in cases]), parts == "train"
    classes = np.unique(labels[training])
    used = {part: cases[parts == part].tolist() for part in PARTS}
    if lack := not_learnable(cohort.class_counts(used)):
        raise GimpError(f"split '{settings.split}': {lack}; expected every class in train")
    absent = ~np.isfinite(table)
    if absent.any():
        table = np.where(absent, np.nanmean(table[training], axis=0), table)
    model = standardised_regression(settings.strength)
    probabilities = np.zeros((len(cases), len(cohort.classes)))
    with threadpool_limits(1):  # other runs have the other cores
        model.fit(table[training], labels[training])
        probabilities[:, classes] = model.predict_proba(table)
    predicted = probabilities.argmax(1)
    return CasePredictions(cohort.classes, cases, parts, labels, predicted, probabilities)


def _features(cohort: Cohort, cases: np.ndarray, settings: LogisticSettings) -> np.ndarray:
    """(n, features), NaN where a patient lacks the modality."""
    blocks = []
    if settings.modalities != "rna":
        chosen = {"shrinkage": settings.site_shrinkage, "split": settings.split}
        blocks.append(mean_patches(cohort, cases, **chosen))
    if settings.modalities != "slide":
        blocks.append(expression(cohort, cases))
    return np.concatenate(blocks, axis=1)
