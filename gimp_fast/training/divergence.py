"""Names the patients of a step whose loss or gradient is not finite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gimp_fast.data import Cohort
from gimp_fast.models.outputs import outputs_of
from gimp_fast.training.stage import StageContext


class Overflow(NamedTuple):
    """A patient whose output is not finite, alone and in eval mode."""

    case_id: str
    slide_ids: tuple[str, ...]
    largest: float | None  # of the features' absolute values; None without slides

    def __str__(self) -> str:
        size = "" if self.largest is None else f", largest feature {self.largest:.3g}"
        return f"{self.case_id} ({_slides(self.slide_ids)}{size})"


def patients_of_step(context: StageContext, case_ids: Sequence[str]) -> str:
    """The patients of a step on all ranks with their slides, and who of them overflows.

    All ranks must call it. The model is left in eval mode.

    Args:
        context: of the stage.
        case_ids: of this rank's batch.
    """
    cohort, ranks = context.reader.cohort, context.ranks
    cases = [case for part in ranks.gather(list(case_ids)) for case in part]
    overflows = [x for part in ranks.gather(_overflows(context, case_ids)) for x in part]
    slides = [slide for case in cases for slide in _slide_ids(cohort, case)]
    text = f"patients {', '.join(cases)} ({_slides(slides)})"
    if overflows:
        text += f"; the model overflows on {', '.join(map(str, overflows))}"
    return text


def _overflows(context: StageContext, case_ids: Sequence[str]) -> list[Overflow]:
    context.model.eval()
    found = []
    for case in case_ids:
        inputs = context.reader.inputs([case]).to(context.device)
        outputs = outputs_of(context.model, inputs, context.device, context.config.precision)
        if not np.isfinite(outputs.predictions).all():
            largest = None if inputs.patches is None else inputs.patches.abs().max().item()
            found.append(Overflow(case, _slide_ids(context.reader.cohort, case), largest))
    return found


def _slide_ids(cohort: Cohort, case_id: str) -> tuple[str, ...]:
    return tuple(cohort.bag(case_id).slide_ids) if cohort.has_slides(case_id) else ()


def _slides(slide_ids: Sequence[str]) -> str:
    if not slide_ids:
        return "no slides"
    return f"{'slide' if len(slide_ids) == 1 else 'slides'} {', '.join(slide_ids)}"
