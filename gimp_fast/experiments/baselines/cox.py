"""Cox's model with a ridge penalty: of covariates, RNA or the mean of the bag, or a sum of risks.

What a deep model of survival has to beat. Validation patients serve twice, as in practice: their
C-index chooses the strength (``--tune``), and test patients are then predicted by a model of
training and validation patients. What is recorded for validation patients is predicted by a model
of the training patients alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from gimp_fast.data import Cohort
from gimp_fast.data.cohort import PARTS
from gimp_fast.errors import GimpError
from gimp_fast.evaluation.ridge_cox import fit_ridge_cox
from gimp_fast.experiments.baselines.features import expression, log_counts, mean_patches
from gimp_fast.experiments.baselines.run_files import write_run
from gimp_fast.experiments.rows import BOTH, RIDGE_COX, RNA, SLIDES
from gimp_fast.models.linear_part import LARGEST
from gimp_fast.runs.folder import RunFolder
from gimp_fast.targets.survival import Survival, SurvivalSettings, outcomes_of
from gimp_fast.training.covariate_scaling import CovariateScaler
from gimp_fast.training.evaluate_outcomes import (
    outcome_predictions,
    outcome_scores,
    target_summary,
)
from gimp_fast.training.fit_linear import STRENGTH, WEIGHT, slope_of


@dataclass(frozen=True)
class CoxSettings:
    """Settings of the baseline.

    Attributes:
        modalities: ``"slide"``, ``"rna"``, ``"both"``, or ``"none"`` for covariates alone.
        covariates: names of those that it reads.
        horizons: times for which survival is recorded.
        strength: of the ridge penalty, for each feature of an input; so it means the same for 8
            covariates and 1,500 genes.
        site_shrinkage: that of :class:`gimp_fast.training.slide_scaling.SlideScaler`.
        weighted: whether the number of patches is an input, too, and inputs have the strengths and
            weights of the linear part of a model (:mod:`gimp_fast.training.fit_linear`).
    """

    modalities: str
    split: str
    target: str
    covariates: tuple[str, ...] = ()
    horizons: tuple[float, ...] = ()
    strength: float = 1.0
    site_shrinkage: float | None = None
    weighted: bool = False

    def carry_out(self, cohort: Cohort, seed: int, folder: RunFolder) -> None:
        """Fit, predict, and write the files of a run."""
        parts = _patients(self, cohort)
        cases = np.array([case for of_part in parts.values() for case in of_part])
        part = np.repeat(list(parts), [len(of_part) for of_part in parts.values()])
        truth = cohort.truth(cases.tolist(), self.target)
        risk = _risks(self, cohort, cases, part, truth)
        settings = SurvivalSettings(loss="cox", horizons=self.horizons or None)
        unit = cohort.targets[self.target].unit
        target = Survival.fit(settings, truth[part == "train"], unit)
        predictions = _predictions(target, part, truth, *risk)
        write_run(
            folder, cohort, method=RIDGE_COX, settings=self, seed=seed, parts=parts,
            predictions=outcome_predictions(target, cases, part, truth, predictions),
            scores=outcome_scores(target, part, truth, predictions, resamples=100, seed=0),
            target=target_summary(self.target, target, part, predictions),
        )  # fmt: skip


def _patients(settings: CoxSettings, cohort: Cohort) -> dict[str, list[str]]:
    """Who can be read and whose outcome is known, of each part; GimpError for an empty part."""
    split = cohort.split(settings.split)
    readable = partial(_readable, settings, cohort)
    parts = {
        part: [c for c in split[part] if cohort.knows(c, settings.target) and readable(c)]
        for part in PARTS
    }
    for part, of_part in parts.items():
        if not of_part:
            raise GimpError(f"split '{settings.split}' has no patient in '{part}' to read")
    return parts


def _risks(
    settings: CoxSettings, cohort: Cohort, cases: np.ndarray, part: np.ndarray, truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Risks (n,) by a model of the training patients, and by one of validation patients, too."""
    blocks = _blocks(settings, cohort, cases, cases[part == "train"].tolist())
    with threadpool_limits(1):  # other runs have the other cores
        of_training, refitted = (
            sum(_risk_of(name, block, truth, fitted, settings) for name, block in blocks.items())
            for fitted in (part == "train", part != "test")
        )
    return of_training, refitted


def _readable(settings: CoxSettings, cohort: Cohort, case: str) -> bool:
    """Whether a patient has any of the modalities; covariates may all be missing."""
    if settings.modalities == "none":
        return any(case in cohort.covariates[name].values for name in settings.covariates)
    return cohort.usable(case, settings.modalities)


def _blocks(
    settings: CoxSettings, cohort: Cohort, cases: np.ndarray, training: Sequence[str]
) -> dict[str, np.ndarray]:
    """Each input as (n, features), by its name; rows of NaN where a patient lacks it."""
    blocks = {}
    if settings.covariates:
        scaler = CovariateScaler.fit(cohort, settings.covariates, training)
        blocks["covariates"] = scaler(cohort.covariates, cases).astype(np.float64)
    if settings.modalities in (SLIDES, BOTH):
        chosen = {"shrinkage": settings.site_shrinkage, "split": settings.split}
        blocks["slide"] = mean_patches(cohort, cases, target=settings.target, **chosen)
        if settings.weighted:
            blocks["amount"] = log_counts(cohort, cases)
    if settings.modalities in (RNA, BOTH):
        blocks["rna"] = expression(cohort, cases)
    return blocks


def _risk_of(
    name: str, block: np.ndarray, truth: np.ndarray, fitted: np.ndarray, settings: CoxSettings
) -> np.ndarray:
    """(n,) risk of one input, 0 without it.

    Among the patients that it is fitted on, its standard deviation is the weight of the input.
    """
    strength, weight = settings.strength, 1.0
    if settings.weighted:
        strength, weight = strength * STRENGTH[name], WEIGHT[name]
    known = np.isfinite(block).any(axis=1)
    rows = fitted & known
    if not truth[rows, 1].any():
        raise GimpError(
            f"split '{settings.split}': no patient with an event in training; Cox's model needs one"
        )
    mean = np.nanmean(block[rows], axis=0)
    spread = np.nanstd(block[rows], axis=0)
    z = (block - mean) / np.where(spread > 0, spread, 1.0)
    z = np.clip(np.nan_to_num(z), -LARGEST, LARGEST)
    model = fit_ridge_cox(z[rows], outcomes_of(truth[rows]), strength * z.shape[1])
    risk = model.risk(z)
    centre, scale = risk[rows].mean(), risk[rows].std()
    return weight * np.where(known, (risk - centre) / (scale if scale > 0 else 1.0), 0.0)


def _predictions(
    target: Survival,
    part: np.ndarray,
    truth: np.ndarray,
    of_training: np.ndarray,
    refitted: np.ndarray,
) -> np.ndarray:
    """(n, 1 + T): test patients by the second model, all others by the first.

    A sum of risks has no scale of its own, so a Cox model of the validation patients gives each its
    slope and its baseline.
    """
    validation = part == "val"
    risk = np.where(part == "test", refitted, of_training)
    scaled = _slope(of_training[validation], truth[validation]) * risk
    outputs = torch.as_tensor(scaled)[:, None]
    chosen = torch.as_tensor(validation)
    target.calibrate(lambda: outputs[chosen], torch.as_tensor(truth[validation]))
    found = target.predictions(outputs).numpy().astype(np.float64)
    found[:, 0] = risk
    return found


def _slope(risk: np.ndarray, truth: np.ndarray) -> float:
    """Of Cox's model of a risk; 1 where no validation patient has the event."""
    if not truth[:, 1].any():
        return 1.0
    return slope_of(risk, truth)
