"""What reads the batch of a step, for each stage; picklable, so that another process can."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gimp_fast.training.loader import StepPlan
from gimp_fast.training.sampling import (
    GeneBatch,
    PatientBatch,
    PatientReader,
    ViewBatch,
    WindowBatch,
)


@dataclass(frozen=True)
class GeneFetcher:
    """Reads the RNA of patients."""

    reader: PatientReader

    def __call__(self, plan: StepPlan) -> GeneBatch:
        genes, _ = self.reader.genes(plan.case_ids)
        return GeneBatch(plan.case_ids, self.reader.labels(plan.case_ids), genes)


@dataclass(frozen=True)
class WindowFetcher:
    """Reads masked windows of ``length`` patches."""

    reader: PatientReader
    length: int
    mask_ratio: float

    def __call__(self, plan: StepPlan) -> WindowBatch:
        return self.reader.windows(plan.case_ids, self.length, self.mask_ratio, plan.rngs())


@dataclass(frozen=True)
class ViewFetcher:
    """Reads ``count`` windows of ``length`` patches of each patient."""

    reader: PatientReader
    length: int
    count: int

    def __call__(self, plan: StepPlan) -> ViewBatch:
        return self.reader.views(plan.case_ids, self.length, self.count, plan.rngs())


@dataclass(frozen=True)
class PatientFetcher:
    """Reads whole patients, of whom some hide one of two modalities."""

    reader: PatientReader
    modality_dropout: float = 0.0

    def __call__(self, plan: StepPlan) -> PatientBatch:
        hide, chance = None, self.modality_dropout
        if chance:
            shares = [1 - chance, chance / 2, chance / 2]
            hide = np.array([rng.choice(3, p=shares) for rng in plan.rngs()])
        return self.reader.batch(plan.case_ids, hide)
