"""How far the patients of training differ among themselves: what a new patient is judged by.

A limit that half of the training patients exceed says nothing. So limits are quantiles of theirs,
and one in a hundred of them is beyond each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from gimp_fast.data import Cohort
from gimp_fast.errors import GimpError
from gimp_fast.training.scaling import GeneScaler

TAIL = 0.01  # share of the training patients beyond a limit
FAR = 6.0  # standard deviations of a gene that is far off
_CHUNK = 256  # patients whose expression is read together


class ExpressionStatistics(NamedTuple):
    """Of n patients, (n,) each.

    Attributes:
        far: share of the genes beyond ``FAR`` standard deviations.
        level: sum of the positive values, over the same sum of the training means.
        logged, raised: the same after a logarithm, and after a power of two.
    """

    far: np.ndarray
    level: np.ndarray
    logged: np.ndarray
    raised: np.ndarray


def expression_statistics(scaler: GeneScaler, values: np.ndarray) -> ExpressionStatistics:
    """How the expression of patients differs from that of training.

    Args:
        scaler: fitted on the training patients.
        values: (n, G) in the order of the scaler's genes, not scaled; NaN where not measured.
    """
    mean, std, values = scaler.mean, scaler.std, scaler.harmonised(values)
    measured = ~np.isnan(values)
    positive = np.clip(np.where(measured, values, 0.0), 0, None).astype(np.float64)
    raised = np.exp2(np.minimum(positive, 64)) - 1
    usual = np.where(measured, np.clip(mean, 0, None), 0.0).sum(1)  # of each patient's genes
    with np.errstate(invalid="ignore", divide="ignore"):
        far = (np.abs((values - mean) / std) > FAR).sum(1) / np.maximum(measured.sum(1), 1)
        sums = [x.sum(1) for x in (positive, np.log2(positive + 1), raised)]
        levels = [np.where(usual > 0, x / usual, np.nan) for x in sums]
    return ExpressionStatistics(far, *levels)


@dataclass(frozen=True)
class TrainingRanges:
    """Limits that few patients of training exceed; None where there is nothing to judge by.

    Attributes:
        fewest_patches: of a patient.
        most_far_genes: share of a patient's genes beyond ``FAR`` standard deviations.
        lowest_level, highest_level: of the sum of a patient's expression, see
            :class:`ExpressionStatistics`.
    """

    fewest_patches: int | None = None
    most_far_genes: float | None = None
    lowest_level: float | None = None
    highest_level: float | None = None

    @classmethod
    def of(
        cls, cohort: Cohort, cases: Sequence[str], modalities: str, scaler: GeneScaler | None
    ) -> TrainingRanges:
        """Those of the training patients.

        Args:
            cohort: their cohort.
            cases: the training patients.
            modalities: that the model reads.
            scaler: fitted on them; None for a model of slides alone.
        """
        found: dict[str, Any] = {}
        with_slides = [] if modalities == "rna" else list(filter(cohort.has_slides, cases))
        if with_slides:
            sizes = [cohort.bag(case).num_patches for case in with_slides]
            found["fewest_patches"] = int(np.quantile(sizes, TAIL, method="lower"))
        with_rna = list(filter(cohort.has_expression, cases))
        if scaler is not None and scaler.mean.any() and with_rna:
            far, level = _far_and_level(cohort, with_rna, scaler)
            found["most_far_genes"] = float(np.quantile(far, 1 - TAIL, method="higher"))
            level = level[np.isfinite(level)]
            if len(level):
                found["lowest_level"] = float(np.quantile(level, TAIL, method="lower"))
                found["highest_level"] = float(np.quantile(level, 1 - TAIL, method="higher"))
        return cls(**found)

    def as_dict(self) -> dict[str, Any]:
        """For the JSON of a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any, where: object) -> TrainingRanges:
        """What :meth:`as_dict` gave; GimpError, which names ``where``, for anything else."""
        fields = {} if not isinstance(values, dict) else values
        numbers = [x for x in fields.values() if x is None or _is_number(x)]
        known = set(fields) <= set(cls.__dataclass_fields__)
        if not isinstance(values, dict) or len(numbers) != len(fields) or not known:
            raise GimpError(f"{where}: found damaged ranges of the patients of training")
        return cls(**fields)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) < 1e18


def _far_and_level(
    cohort: Cohort, cases: Sequence[str], scaler: GeneScaler
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) each, of patients with expression."""
    parts = []
    for start in range(0, len(cases), _CHUNK):
        values = cohort.expression(cases[start : start + _CHUNK])
        if scaler.columns is not None:
            values = values[:, scaler.columns]
        parts.append(expression_statistics(scaler, values))
    return tuple(np.concatenate([getattr(p, name) for p in parts]) for name in ("far", "level"))
