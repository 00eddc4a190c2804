"""Predictions of a model on patients of a cohort, during training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gimp_fast.models import PatientModel
from gimp_fast.models.outputs import outputs_of
from gimp_fast.training.distributed import ALONE, Ranks
from gimp_fast.training.loader import plan_epoch
from gimp_fast.training.sampling import PatientReader


@torch.no_grad()
def predict(
    model: PatientModel,
    reader: PatientReader,
    case_ids: Sequence[str],
    *,
    batch_size: int,
    device: torch.device,
    precision: str = "fp32",
    ranks: Ranks = ALONE,
) -> tuple[np.ndarray, np.ndarray]:
    """Class probabilities (patients, classes) and representations (patients, ·), both float32.

    The representation is what the model classifies, CLS_pat in GiMP.

    Ranks take turns at the batches; the result is the same on each.
    """
    model.eval()
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    plans = plan_epoch(case_ids, batch_size, [], shuffle=False)
    for plan in plans[ranks.rank :: ranks.size]:
        batch = reader.batch(plan.case_ids).to(device)
        found[plan.step] = outputs_of(model, batch.inputs(), device, precision)
    for others in ranks.gather(found):
        found |= others
    rows = zip(*(found[plan.step] for plan in plans), strict=True)
    probabilities, representations = (np.concatenate(parts) for parts in rows)
    return probabilities, representations
