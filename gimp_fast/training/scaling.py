"""Scaling and choice of genes, fitted on training patients only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gimp_fast.errors import GimpError

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
    """

    mean: np.ndarray
    std: np.ndarray
    columns: np.ndarray | None = None
    limit: float | None = None

    @classmethod
    def fit(
        cls,
        expression: np.ndarray,
        *,
        scaling: GeneScaling = "z-score",
        most_variable: int | None = None,
        limit: float | None = None,
    ) -> GeneScaler:
        """Fit on training patients.

        Missing values (NaN) do not count; a gene without any value must not be among them.

        Args:
            expression: (patients, G).
            scaling: ``"none"`` leaves the values unchanged.
            most_variable: keep this many genes, those of the largest variance; None keeps all.
            limit: of z-scores; values that are not scaled have none.
        """
        gaps = np.isnan(expression).any()
        mean = (np.nanmean if gaps else np.mean)(expression, 0, dtype=np.float64)
        std = (np.nanstd if gaps else np.std)(expression, 0, dtype=np.float64)
        columns = None
        if most_variable is not None and most_variable < len(std):
            columns = np.sort(np.argsort(-std, kind="stable")[:most_variable])
            mean, std = mean[columns], std[columns]
        if scaling == "none":
            mean, std, limit = np.zeros_like(mean), np.ones_like(std), None
        std[std < 1e-6] = 1.0
        return cls(mean.astype(np.float32), std.astype(np.float32), columns, limit)

    def __call__(self, expression: np.ndarray) -> np.ndarray:
        """(patients, genes of the cohort) -> (patients, G) float32.

        A gene that was not measured (NaN) gets the mean of the training patients, z = 0.
        """
        chosen = expression if self.columns is None else expression[:, self.columns]
        scaled = np.nan_to_num((chosen - self.mean) / self.std, nan=0.0)
        return scaled if self.limit is None else scaled.clip(-self.limit, self.limit)

    def tensors(self) -> dict[str, Tensor]:
        """What checkpoints and exports hold; the columns are in their list of genes."""
        tensors = {f"{PREFIX}mean": torch.from_numpy(self.mean)}
        tensors[f"{PREFIX}std"] = torch.from_numpy(self.std)
        if self.limit is not None:
            tensors[f"{PREFIX}limit"] = torch.tensor(self.limit)
        return tensors


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
