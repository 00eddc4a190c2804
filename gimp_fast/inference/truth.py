"""What a trained model is asked, and where a cohort of new patients has the truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gimp_fast.data import Cohort
from gimp_fast.inference.model import TrainedModel
from gimp_fast.targets.member import Member
from gimp_fast.targets.several import Several


def members_of(trained: TrainedModel) -> tuple[Member, ...]:
    """The targets of a model, one or several."""
    if isinstance(trained.target, Several):
        return trained.target.members
    named, labels = trained.asked or "", trained.asked is None
    return (Member(named, trained.target, trained.classes, of_labels=labels),)


def true_numbers(cohort: Cohort, member: Member, case_ids: Sequence[str]) -> np.ndarray:
    """(n, columns of truth) by the target of the same name and kind; NaN where not known."""
    found = np.full((len(case_ids), len(member.truth_columns)), np.nan)
    known = cohort.targets.get(member.name)
    if known is not None and known.kind == member.target.kind:
        rows = [row for row, case in enumerate(case_ids) if case in known.values]
        values = known.truth(case_ids[row] for row in rows)
        found[rows] = values.reshape(len(rows), found.shape[1])
    return found
