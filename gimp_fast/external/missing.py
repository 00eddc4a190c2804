"""Validates models of slides and RNA on patients of whom more and more lack one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gimp_fast.data import Cohort
from gimp_fast.errors import GimpError
from gimp_fast.evaluation.independent import Drawn
from gimp_fast.external.describe import about_model
from gimp_fast.external.groups import units_of, weights_of
from gimp_fast.external.kinds import Kind
from gimp_fast.external.missing_curves import (
    SHARES,
    Answers,
    Draws,
    best_of,
    curve,
    lacking,
    paired_difference,
)
from gimp_fast.external.missing_result import Missing, MissingCurve, MissingPoint
from gimp_fast.external.options import ValidateOptions
from gimp_fast.inference.model import TrainedModel
from gimp_fast.inference.options import PredictOptions
from gimp_fast.inference.predictions import predicted_by_each
from gimp_fast.runs.score_texts import READS
from gimp_fast.training.sampling import HIDE_NOTHING, HIDE_RNA, HIDE_SLIDES

_HIDE = {"rna": HIDE_RNA, "slide": HIDE_SLIDES}
_OTHER = {"rna": "slide", "slide": "rna"}
EITHER = "either"  # the model of what is lost for who still has it, the other model for the rest


@dataclass(frozen=True)
class Patients:
    """The new patients, n of them.

    Attributes:
        truth: as in :class:`gimp_fast.external.kinds.Sample`.
        predicted: (n, columns) with all that they have.
    """

    cohort: Cohort
    case_ids: tuple[str, ...]
    truth: np.ndarray
    predicted: np.ndarray

    def chosen(self, rows: np.ndarray) -> Patients:
        """Some of them, by (n,) bool."""
        cases = tuple(case for case, kept in zip(self.case_ids, rows, strict=True) if kept)
        return Patients(self.cohort, cases, self.truth[rows], self.predicted[rows])


def check_modalities(models: Sequence[TrainedModel], against: Sequence[TrainedModel]) -> None:
    """GimpError unless models read slides and RNA, and those they are held against one of them."""
    for trained in models:
        if trained.modalities != "both":
            raise GimpError(
                f"{trained.source}: found a model of {READS[trained.modalities]} alone; expected "
                "one of slides and RNA, of which one can be missing (--missing)"
            )
    for trained in against:
        if trained.modalities == "both":
            raise GimpError(
                f"{trained.source}: found a model of slides and RNA; expected one of slides alone "
                "or RNA alone to hold others against (--against)"
            )


def missing_modality(
    models: Sequence[TrainedModel],
    against: Sequence[TrainedModel],
    patients: Patients,
    kind: Kind,
    options: ValidateOptions,
    predict: PredictOptions | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> Missing:
    """Scores while 0 to 100 % of the patients lack RNA, and while they lack slides.

    Only patients who have both are followed. Each is predicted three times, with both, without RNA
    and without slides; these predictions are mixed. Of several models, predictions are averaged.

    Args:
        models: of slides and RNA.
        against: models of slides alone and of RNA alone; may be empty.
        patients: whom no model has seen.
        kind: of their target.
        options: of the draws.
        predict, log: as in :func:`gimp_fast.external.validate_model`.
    """
    cohort, of = patients.cohort, len(patients.case_ids)
    rows = [cohort.has_slides(case) and cohort.has_expression(case) for case in patients.case_ids]
    both = patients.chosen(np.array(rows, bool))
    described = tuple(about_model(trained) for trained in against)
    count = len(both.case_ids)
    if count < 2:
        why = f"{count} of {of} patients have slides and RNA; expected two or more"
        return Missing(
            count, of, options.missing_draws, None, described, (), dict.fromkeys(_HIDE, why)
        )

    def mean(of_models: Sequence[TrainedModel], hide: int) -> np.ndarray:
        predicted = predicted_by_each(of_models, cohort, both.case_ids, predict, hide)
        return np.mean(predicted, axis=0, dtype=np.float64)

    log(f"predicting {count} patients without RNA, and without slides")
    hidden = {lacks: mean(models, hide) for lacks, hide in _HIDE.items()}
    single = {}
    for reads in _HIDE:
        if some := [trained for trained in against if trained.modalities == reads]:
            log(f"predicting {count} patients from {READS[reads]} alone")
            single[reads] = mean(some, HIDE_NOTHING)
    units, cluster = units_of(cohort, both.case_ids, options.fewest_hospitals)
    draws = Draws.of(weights_of(count, cluster, options), options.missing_draws, options.seed)
    curves, reasons = [], {}
    for lacks, without in hidden.items():
        if np.isfinite(without).all():
            answers = Answers(both.predicted, without)
            curves += curves_of(kind, lacks, answers, single, both.truth, draws)
        else:
            reasons[lacks] = "some predictions without it are not finite"
    return Missing(count, of, options.missing_draws, units, described, tuple(curves), reasons)


def curves_of(
    kind: Kind,
    lacks: str,
    answers: Answers,
    single: Mapping[str, np.ndarray],
    truth: np.ndarray,
    draws: Draws,
) -> Iterator[MissingCurve]:
    """The curve of each score, beside the best of models of one modality.

    Args:
        kind: of the target.
        lacks: ``"rna"`` or ``"slide"``.
        answers: of the models of both modalities.
        single: ``"slide"``, ``"rna"`` -> (n, columns), of models of one modality, if there are any.
        truth: of the n patients.
        draws: for all curves.
    """
    own = curve(kind, answers, truth, draws)
    others = {
        name: curve(kind, of, truth, draws) for name, of in _references(lacks, single).items()
    }
    for score in kind.curved:
        of_score = {name: found[score] for name, found in others.items()}
        less = score in kind.of_errors
        points = [
            _point(place, own[score][place], of_score, len(truth), less)
            for place in range(len(SHARES))
        ]
        yield MissingCurve(
            lacks, score, kind.titles[score], tuple(points), kind.tolerance.get(score), less
        )


def _references(lacks: str, single: Mapping[str, np.ndarray]) -> dict[str, Answers]:
    """What models of one modality can answer while the other is lost, by name.

    The model of what remains answers everybody; or that of what is lost answers those who still
    have it, and the other model the rest.
    """
    remains = single.get(_OTHER[lacks])
    if remains is None:
        return {}
    found = {_OTHER[lacks]: Answers(remains, remains)}
    lost = single.get(lacks)
    if lost is not None:
        found[EITHER] = Answers(lost, remains)
    return found


def _point(
    place: int,
    own: Drawn | None,
    others: Mapping[str, list[Drawn | None]],
    patients: int,
    less_is_better: bool,
) -> MissingPoint:
    name, reference = best_of(others, place, less_is_better)
    return MissingPoint(
        SHARES[place],
        lacking(SHARES[place], patients),
        own and own.estimate,
        reference and reference.estimate,
        name,
        paired_difference(own, reference),
    )
