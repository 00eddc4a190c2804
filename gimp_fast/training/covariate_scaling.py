"""Clinical covariates as numbers: standardised, or a column for each level, fitted on training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gimp_fast.data import Cohort
from gimp_fast.data.cohort_covariates import NUMERIC, CohortCovariate
from gimp_fast.errors import GimpError, did_you_mean

PREFIX = "covariates."  # of the tensors in a checkpoint


@dataclass(frozen=True)
class CovariateScaler:
    """What a model reads of covariates.

    A numeric one has two columns: its z-score, 0 where missing, and 1 where it is missing. A
    categorical one has a column for each level of training, and one for a level that is missing or
    was not seen there.

    Attributes:
        covariates: (name, kind, levels) of each, in order.
        mean, std: of the numeric ones, of the training patients; 0 and 1 for the others.
    """

    covariates: tuple[tuple[str, str, tuple[str, ...]], ...]
    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def fit(cls, cohort: Cohort, names: Sequence[str], training: Sequence[str]) -> CovariateScaler:
        """Of the named covariates of a cohort; GimpError if it lacks one, or no patient has it."""
        described, moments = [], []
        for name in names:
            if name not in cohort.covariates:
                has = ", ".join(cohort.covariates) or "none"
                raise GimpError(
                    f"covariates: found '{name}'; the cohort {cohort.path} has {has}"
                    f"{did_you_mean(name, cohort.covariates)}"
                )
            covariate = cohort.covariates[name]
            known = [covariate.values[case] for case in training if case in covariate.values]
            if not known:
                raise GimpError(f"{cohort.path}: no training patient has the covariate '{name}'")
            mean, std, levels = 0.0, 1.0, ()
            if covariate.kind == NUMERIC:
                mean, std = float(np.mean(known)), float(np.std(known)) or 1.0
            else:
                levels = tuple(level for level in covariate.levels if level in set(known))
            described.append((name, covariate.kind, levels))
            moments.append((mean, std))
        # Copied: the bytes of a single row's column could not be read for a checksum.
        mean, std = np.array(moments, np.float64).reshape(-1, 2).T.copy()
        return cls(tuple(described), mean, std)

    @property
    def width(self) -> int:
        """D, columns of all covariates."""
        return sum(2 if kind == NUMERIC else len(levels) + 1 for _, kind, levels in self.covariates)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _, _ in self.covariates)

    def __call__(
        self, covariates: Mapping[str, CohortCovariate], case_ids: Sequence[str]
    ) -> np.ndarray:
        """(B, D) float32 of patients; a covariate that is not there is missing for all."""
        columns = []
        for (name, kind, levels), mean, std in zip(
            self.covariates, self.mean, self.std, strict=True
        ):
            values = covariates[name].values if name in covariates else {}
            cells = [values.get(case) for case in case_ids]
            if kind == NUMERIC:
                missing = [not isinstance(cell, float) for cell in cells]
                z = [0.0 if no else (cell - mean) / std
                     for cell, no in zip(cells, missing, strict=True)]  # fmt: skip
                columns += [z, missing]
            else:
                places = [levels.index(c) if c in levels else len(levels) for c in cells]
                columns += np.eye(len(levels) + 1)[np.array(places, np.int64)].T.tolist()
        return np.array(columns, np.float32).reshape(self.width, len(case_ids)).T.copy()

    def missing(self, covariates: Mapping[str, CohortCovariate], case_id: str) -> tuple[str, ...]:
        """Names of what is missing, or of another level than any in training, of a patient."""
        return tuple(
            name
            for name, kind, levels in self.covariates
            if (value := covariates[name].values.get(case_id) if name in covariates else None)
            is None
            or (kind != NUMERIC and value not in levels)
        )

    def tensors(self) -> dict[str, Tensor]:
        """What checkpoints and exports hold."""
        return {
            f"{PREFIX}mean": torch.from_numpy(self.mean),
            f"{PREFIX}std": torch.from_numpy(self.std),
        }

    def facts(self) -> list[dict[str, Any]]:
        """What a checkpoint says beside the tensors."""
        return [
            {"name": name, "kind": kind, "levels": list(levels)}
            for name, kind, levels in self.covariates
        ]

    @classmethod
    def of_checkpoint(
        cls, facts: Sequence[Mapping[str, Any]], tensors: Mapping[str, Tensor]
    ) -> CovariateScaler:
        """From :meth:`facts` and :meth:`tensors`; KeyError or ValueError if they do not fit."""
        described = tuple((f["name"], f["kind"], tuple(f["levels"])) for f in facts)
        mean, std = (tensors[f"{PREFIX}{name}"].double().numpy() for name in ("mean", "std"))
        if mean.shape != (len(described),) or std.shape != mean.shape or not (std > 0).all():
            raise ValueError(f"covariates: found {mean.shape} means for {len(described)}")
        return cls(described, mean, std)
