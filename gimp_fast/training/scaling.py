"""Scaling and choice of genes, fitted on training patients only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gimp_fast.errors import GimpError
from gimp_fast.training.harmonising import GeneHarmonise, harmonised, mean_quantiles

GeneScaling = Literal["z-score", "none"]
PREFIX = "scaler."  # of the tensors in a checkpoint


@dataclass(frozen=True)
class GeneScaler:
    """z = (x − mean) / std, cut off at ± limit, of some or all genes of a cohort.

    Attributes:
        mean, std: (G,) float32. A constant gene has std 1.
        columns: (G,) columns of the cohort's genes, ascending; None for all of them.
        limit: largest |z|. A gene that one training patient in hundreds expresses has a tiny std,
            and z in the thousands elsewhere. None for no limit.
        harmonise: how each patient's values are put on one scale before; mean and std are of these.
        quantiles: (Q,) float32, the scale of ``"quantile"``; else None.
    """

    mean: np.ndarray
    std: np.ndarray
    columns: np.ndarray | None = None
    limit: float | None = None
    harmonise: GeneHarmonise = "none"
    quantiles: np.ndarray | None = None

    @classmethod
    def fit(
        cls,
        expression: np.ndarray,
        *,
        scaling: GeneScaling = "z-score",
        most_variable: int | None = None,
        limit: float | None = None,
        harmonise: GeneHarmonise = "none",
    ) -> GeneScaler:
        """Fit on training patients.

        Missing values (NaN) do not count; a gene without any value must not be among them.

        Args:
            expression: (patients, G).
            scaling: ``"none"`` leaves the values unchanged.
            most_variable: keep this many genes, those of the largest variance, of the values as
                they are; None keeps all.
            limit: of z-scores; values that are not scaled have none.
            harmonise: of the genes that are kept.
        """
        mean, std = _moments(expression)
        columns = quantiles = None
        if most_variable is not None and most_variable < len(std):
            columns = np.sort(np.argsort(-std, kind="stable")[:most_variable])
            mean, std = mean[columns], std[columns]
        if harmonise != "none":
            # The order is that of the genes that a checkpoint lists: new patients have no others.
            kept = expression if columns is None else expression[:, columns]
            quantiles = mean_quantiles(kept) if harmonise == "quantile" else None
            mean, std = _moments(harmonised(kept, quantiles))
        if scaling == "none":
            mean, std, limit = np.zeros_like(mean), np.ones_like(std), None
        std[std < 1e-6] = 1.0
        mean, std = mean.astype(np.float32), std.astype(np.float32)
        return cls(mean, std, columns, limit, harmonise, quantiles)

    def __call__(self, expression: np.ndarray) -> np.ndarray:
        """(patients, genes of the cohort) -> (patients, G) float32.

        A gene that was not measured (NaN) gets the mean of the training patients, z = 0.
        """
        chosen = self.harmonised(
            expression if self.columns is None else expression[:, self.columns]
        )
        scaled = np.nan_to_num((chosen - self.mean) / self.std, nan=0.0)
        return scaled if self.limit is None else scaled.clip(-self.limit, self.limit)

    def harmonised(self, values: np.ndarray) -> np.ndarray:
        """The values of the scaler's genes, (n, G), as mean and std are of them; NaN stays NaN."""
        if self.harmonise == "none":
            return values
        usual = self.mean if self.mean.any() else None  # values that are not scaled have no mean
        return harmonised(values, self.quantiles, usual)

    def tensors(self) -> dict[str, Tensor]:
        """What checkpoints and exports hold; columns and ``harmonise`` are among their facts."""
        tensors = {f"{PREFIX}mean": torch.from_numpy(self.mean)}
        tensors[f"{PREFIX}std"] = torch.from_numpy(self.std)
        if self.limit is not None:
            tensors[f"{PREFIX}limit"] = torch.tensor(self.limit)
        if self.quantiles is not None:
            tensors[f"{PREFIX}quantiles"] = torch.from_numpy(self.quantiles)
        return tensors


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column, (G,) float64; NaN does not count."""
    gaps = np.isnan(values).any()
    mean = (np.nanmean if gaps else np.mean)(values, 0, dtype=np.float64)
    return mean, (np.nanstd if gaps else np.std)(values, 0, dtype=np.float64)


def check_gaps(
    expression: np.ndarray, gene_ids: Sequence[str], scaling: GeneScaling, where: str
) -> None:
    """GimpError if missing values cannot be replaced by the mean of the training patients.

    Args:
        expression: (patients, G) of the training patients, NaN where missing.
        gene_ids: of the columns.
        scaling: as in ``GeneScaler.fit``.
        where: cohort and split, for the message.
    """
    missing = np.isnan(expression)
    again = "prepare the cohort with --missing-values drop-gene"
    empty = np.flatnonzero(missing.all(0))
    if len(empty):
        raise GimpError(
            f"{where}: no training patient has a value of {gene_ids[empty[0]]} "
            f"({len(empty)} of {len(gene_ids)} genes lack all); {again}"
        )
    if scaling == "none" and missing.any():
        raise GimpError(
            f"{where}: missing values (of {int(missing.any(0).sum())} of {len(gene_ids)} genes), "
            f"which gene_scaling=none would read as 0; use gene_scaling=z-score, or {again}"
        )
