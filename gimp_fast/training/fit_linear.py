"""Fits the linear part of a model of survival, in closed form, on the patients of a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from gimp_fast.errors import GimpError
from gimp_fast.evaluation.ridge_cox import fit_ridge_cox
from gimp_fast.models.linear_part import LARGEST, LINEAR_INPUTS, LinearPart
from gimp_fast.targets.survival import outcomes_of
from gimp_fast.training.sampling import PatientReader

# Of the ridge penalty, for each feature; and how much the standardised risk of an input counts.
# Chosen on validation patients of six cohorts of TCGA, for all of them together.
STRENGTH = {"slide": 3.0, "amount": 1.0, "rna": 1.0, "covariates": 1.0}
WEIGHT = {"slide": 1.0, "amount": 0.5, "rna": 1.5, "covariates": 3.0}
FOLDS = 5
_SMALLEST_SLOPE = 0.05  # a risk is not turned round


@dataclass(frozen=True)
class _Fitted:
    """Cox's model of one input; among those it is fitted on, its risk has variance 1."""

    mean: np.ndarray  # (d,)
    factor: np.ndarray  # (d,), 1 / sd
    slope: np.ndarray  # (d,)
    centre: float

    def risk(self, features: np.ndarray) -> np.ndarray:
        """(n, d) -> (n,); 0 for rows of NaN."""
        z = np.clip((features - self.mean) * self.factor, -LARGEST, LARGEST)
        return np.nan_to_num(z @ self.slope - self.centre)


def fit_linear_part(
    part: LinearPart, reader: PatientReader, split: dict[str, list[str]], split_name: str
) -> dict[str, np.ndarray]:
    """Fit both sets of the part; returns what it adds (4,) for each training patient.

    That comes from patients of other hospitals: training patients are divided into five folds, by
    hospital where all are known, and each fold is predicted by the others. A network that saw what
    the part makes of the patients it was fitted on would find nothing left to learn.

    Raises:
        GimpError: too few events in training, or in four of five folds.
    """
    cases = [*split["train"], *split["val"]]
    training = np.arange(len(cases)) < len(split["train"])
    truth = reader.truth(cases).numpy()
    inputs = {name: _features(name, reader, cases) for name in part.inputs}
    with threadpool_limits(1):  # the same result on every machine of one kind
        folds = _folds(reader, split["train"])
        crossed = np.zeros((len(cases), len(part.inputs)))
        for fold in range(FOLDS):
            rest, here = training.copy(), np.zeros(len(cases), bool)
            rest[: len(folds)], here[: len(folds)] = folds != fold, folds == fold
            for column, (name, features) in enumerate(inputs.items()):
                model = _fit(name, features, truth, rest, split_name)
                crossed[here, column] = model.risk(features[here])
        weights = np.array([WEIGHT[name] for name in part.inputs])
        scale = slope_of(crossed[training] @ weights, truth[training])
        for chosen, rows in enumerate((training, np.ones(len(cases), bool))):
            for name, features in inputs.items():
                model = _fit(name, features, truth, rows, split_name)
                _keep(part, name, chosen, model, scale * WEIGHT[name])
    found = np.zeros((int(training.sum()), len(LINEAR_INPUTS)), np.float32)
    for column, name in enumerate(part.inputs):
        found[:, LINEAR_INPUTS.index(name)] = scale * WEIGHT[name] * crossed[training, column]
    return dict(zip(split["train"], found, strict=True))


def _features(name: str, reader: PatientReader, cases: Sequence[str]) -> np.ndarray:
    """(n, d) float64 as the model reads them; rows of NaN where a patient lacks the input."""
    if name == "covariates":
        return reader.covariates(reader.cohort.covariates, cases).astype(np.float64)
    if name == "rna":
        genes, has = reader.genes(cases)
        return np.where(np.array(has)[:, None], genes.double().numpy(), np.nan)
    width = reader.feature_dim if name == "slide" else 1
    found = np.full((len(cases), width), np.nan)
    has = np.array([reader.cohort.has_slides(case) for case in cases])
    if name == "amount":
        counts = [reader.cohort.bag(case).num_patches for case in np.array(cases)[has]]
        found[has, 0] = np.log(counts)
    else:
        means = torch.from_numpy(reader.cohort.mean_patches(np.array(cases)[has]))
        if reader.slide_scaler is not None:
            means = reader.slide_scaler(means)
        found[has] = means.double().numpy()
    return found


def _folds(reader: PatientReader, cases: Sequence[str]) -> np.ndarray:
    """(n,) int: hospitals drawn into folds of like size; patients, where a hospital is unknown."""
    sites = [reader.cohort.site(case) for case in cases]
    groups = np.array(cases if None in sites or len(set(sites)) < FOLDS else sites)
    names, of_group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(0).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    fold_of, filled = np.zeros(len(names), int), np.zeros(FOLDS)
    for group in order:
        fold_of[group] = filled.argmin()
        filled[fold_of[group]] += sizes[group]
    return fold_of[of_group]


def _fit(
    name: str, features: np.ndarray, truth: np.ndarray, rows: np.ndarray, split_name: str
) -> _Fitted:
    rows = rows & np.isfinite(features).all(1)
    if not truth[rows, 1].any():
        raise GimpError(
            f"survival.linear=true: split '{split_name}': found no event among {rows.sum()} "
            f"training patients with {name}; expected one or more in every four of five folds"
        )
    mean, sd = features[rows].mean(0), features[rows].std(0)
    factor = np.divide(1.0, sd, out=np.zeros_like(sd), where=sd > 0)
    z = np.clip((features[rows] - mean) * factor, -LARGEST, LARGEST)
    model = fit_ridge_cox(z, outcomes_of(truth[rows]), STRENGTH[name] * z.shape[1])
    slope = model.coefficients / model.sd
    risk = z @ slope
    spread = risk.std() or 1.0
    return _Fitted(mean, factor, slope / spread, float(risk.mean() / spread))


def slope_of(risk: np.ndarray, truth: np.ndarray) -> float:
    """Slope of Cox's model of a risk (n,), for the truth (n, 2) with an event or more."""
    model = fit_ridge_cox(risk[:, None], outcomes_of(truth), 1.0)
    return max(_SMALLEST_SLOPE, float(model.coefficients[0] / model.sd[0]))


def _keep(part: LinearPart, name: str, chosen: int, model: _Fitted, scale: float) -> None:
    arrays = {
        "mean": model.mean,
        "factor": model.factor,
        "slope": scale * model.slope,
        "centre": np.array(scale * model.centre),
    }
    for key, values in arrays.items():
        getattr(part, f"{name}_{key}")[chosen] = torch.as_tensor(values)
