"""Logistic regression on the mean of the bag, on RNA, or on both: what a deep model has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from gimp_fast.data import Cohort
from gimp_fast.errors import GimpError


@dataclass(frozen=True)
class LogisticSettings:
    """Attributes:
    modalities: what it reads: ``"slide"``, ``"rna"`` or ``"both"``.
    split: of the cohort.
    strength: C of scikit-learn, the inverse of the penalty; one for all cohorts, not tuned.
    """

    modalities: str
    split: str
    strength: float = 0.05


@dataclass(frozen=True)
class Fitted:
    """Attributes:
    cases: case ids, of training, validation and test patients.
    parts: (n,) the part of each.
    labels: (n,) int.
    probabilities: (n, classes).
    """

    cases: list[str]
    parts: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray


def logistic_regression(settings: LogisticSettings, cohort: Cohort) -> Fitted:
    """Fit on the training patients; validation patients choose nothing.

    A modality that a patient lacks, where both are read, is the mean of the training patients.

    Raises:
        GimpError: no patient of a part has what is read, or training patients are of one class.
    """
    parts, features = cohort.split(settings.split), _Features(cohort, settings.modalities)
    parts = {name: [c for c in cases if features.usable(c)] for name, cases in parts.items()}
    for name in ("train", "val", "test"):
        if not parts.get(name):
            raise GimpError(f"split '{settings.split}' has no patient in '{name}' to read")
    cases = [case for name in ("train", "val", "test") for case in parts[name]]
    names = np.array([name for name in ("train", "val", "test") for _ in parts[name]])
    labels = np.array([cohort.label(case) for case in cases])
    training = names == "train"
    found = sorted(set(labels[training].tolist()))
    if len(found) < 2:
        raise GimpError(f"split '{settings.split}': training patients are all of one class")
    table = features.table(cases)
    absent = ~np.isfinite(table)
    if absent.any():
        table = np.where(absent, np.nanmean(table[training], axis=0), table)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=settings.strength, max_iter=5000))
    with threadpool_limits(1):  # other runs have the other cores
        model.fit(table[training], labels[training])
        of_found = model.predict_proba(table)
    probabilities = np.zeros((len(cases), len(cohort.classes)))
    probabilities[:, found] = of_found
    return Fitted(cases, names, labels, probabilities)


class _Features:
    def __init__(self, cohort: Cohort, modalities: str):
        self.cohort = cohort
        self.slides, self.genes = modalities != "rna", modalities != "slide"

    def usable(self, case: str) -> bool:
        return (self.slides and self.cohort.has_slides(case)) or (
            self.genes and self.cohort.has_expression(case)
        )

    def table(self, cases: list[str]) -> np.ndarray:
        """(n, features), NaN where a patient lacks the modality."""
        blocks: list[Any] = []
        if self.slides:
            block = np.full((len(cases), self.cohort.feature_dim), np.nan)
            for row, case in enumerate(cases):
                if self.cohort.has_slides(case):
                    block[row] = self.cohort.bag(case).read().mean(0, dtype=np.float64)
            blocks.append(block)
        if self.genes:
            block = np.full((len(cases), len(self.cohort.gene_ids)), np.nan)
            rows = [row for row, case in enumerate(cases) if self.cohort.has_expression(case)]
            block[rows] = self.cohort.expression([cases[row] for row in rows])
            blocks.append(block)
        return np.concatenate(blocks, axis=1)
