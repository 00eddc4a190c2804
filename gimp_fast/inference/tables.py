"""The tables of predicted patients: a row for each, and the columns of the targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from gimp_fast.data import Cohort
from gimp_fast.inference.cautions import Caution, codes_of
from gimp_fast.inference.model import TrainedModel
from gimp_fast.inference.truth import members_of, true_numbers
from gimp_fast.targets.member import Member
from gimp_fast.targets.several import Several


def prediction_table(
    trained: TrainedModel,
    cohort: Cohort,
    cases: Sequence[str],
    usable: Sequence[str],
    reported: np.ndarray,
    cautions: Mapping[str, tuple[Caution, ...]],
) -> pd.DataFrame:
    """One row per patient; what could not be predicted, or whose truth is unknown, is empty.

    Args:
        trained: one of the models.
        cohort: whose patients they are.
        cases: of the rows.
        usable: those who were predicted.
        reported: (usable, columns of the model).
        cautions: case_id -> reasons to doubt.
    """
    slides = [cohort.bag(c).slide_ids if cohort.has_slides(c) else () for c in cases]
    columns = {"case_id": cases, "slide_ids": [";".join(ids) for ids in slides]}
    several = isinstance(trained.target, Several)
    places = trained.target.reports if several else (slice(None),)
    for member, place in zip(members_of(trained), places, strict=True):
        columns_of = class_columns if member.classes else outcome_columns
        of_target = columns_of(member, cohort, cases, usable, reported[:, place])
        if several:
            of_target.columns = member.prefixed(of_target.columns)
        columns |= of_target.reset_index(drop=True)
    columns["warnings"] = [codes_of(cautions[case]) for case in cases]
    return pd.DataFrame(columns)


def class_columns(
    member: Member,
    cohort: Cohort,
    cases: Sequence[str],
    usable: Sequence[str],
    probabilities: np.ndarray,
) -> pd.DataFrame:
    """The predicted class, a probability of each, and the true class."""
    classes = member.classes
    predicted = pd.DataFrame(probabilities, usable, list(member.prediction_columns))
    predicted.insert(0, "prediction", [classes[place] for place in probabilities.argmax(1)])
    predicted = predicted.reindex(cases).fillna({"prediction": ""})
    return predicted.assign(label=[cohort.class_of(case, member.asked) or "" for case in cases])


def outcome_columns(
    member: Member,
    cohort: Cohort,
    cases: Sequence[str],
    usable: Sequence[str],
    reported: np.ndarray,
) -> pd.DataFrame:
    """The numbers that are predicted, and the true ones."""
    predicted = pd.DataFrame(reported, usable, list(member.prediction_columns)).reindex(cases)
    names = [f"true_{column}" for column in member.truth_columns]
    truth = pd.DataFrame(true_numbers(cohort, member, cases), cases, names)
    return pd.concat([predicted, truth], axis=1)
