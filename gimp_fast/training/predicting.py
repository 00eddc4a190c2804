"""Predictions of a model on patients of a cohort, during training."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gimp_fast.models import PatientModel
from gimp_fast.models.outputs import Outputs, outputs_of
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
) -> Outputs:
    """What the model makes of patients, in their order.

    Ranks take turns at the batches; the result is the same on each.
    """
    model.eval()
    found: dict[int, Outputs] = {}
    plans = plan_epoch(case_ids, batch_size, [], shuffle=False)
    for plan in plans[ranks.rank :: ranks.size]:
        inputs = reader.inputs(plan.case_ids).to(device)
        found[plan.step] = outputs_of(model, inputs, device, precision)
    for others in ranks.gather(found):
        found |= others
    return Outputs.joined([found[plan.step] for plan in plans])
