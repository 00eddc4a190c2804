"""Scaling and choice of genes, fitted on training patients only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

GeneScaling = Literal["z-score", "none"]


@dataclass(frozen=True)
class GeneScaler:
    """z = (x − mean) / std, of some or all genes of a cohort.

    Attributes:
        mean, std: (G,) float32. A constant gene has std 1.
        columns: (G,) columns of the cohort's genes, ascending; None for all of them.
    """

    mean: np.ndarray
    std: np.ndarray
    columns: np.ndarray | None = None

    @classmethod
    def fit(
        cls,
        expression: np.ndarray,
        *,
        scaling: GeneScaling = "z-score",
        most_variable: int | None = None,
    ) -> GeneScaler:
        """Fit on training patients.

        Args:
            expression: (patients, G).
            scaling: ``"none"`` leaves the values unchanged.
            most_variable: keep this many genes, those of the largest variance; None keeps all.
        """
        mean = expression.mean(0, dtype=np.float64)
        std = expression.std(0, dtype=np.float64)
        columns = None
        if most_variable is not None and most_variable < len(std):
            columns = np.sort(np.argsort(-std, kind="stable")[:most_variable])
            mean, std = mean[columns], std[columns]
        if scaling == "none":
            mean, std = np.zeros_like(mean), np.ones_like(std)
        std[std < 1e-6] = 1.0
        return cls(mean.astype(np.float32), std.astype(np.float32), columns)

    def __call__(self, expression: np.ndarray) -> np.ndarray:
        """(patients, genes of the cohort) -> (patients, G) float32.

        A gene that was not measured (NaN) gets the mean of the training patients, z = 0.
        """
        chosen = expression if self.columns is None else expression[:, self.columns]
        return np.nan_to_num((chosen - self.mean) / self.std, nan=0.0)
