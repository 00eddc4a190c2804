"""Which patients of a cohort a model is validated on, and their truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gimp_fast import targets
from gimp_fast.data import Cohort
from gimp_fast.data.cohort_targets import CohortTarget
from gimp_fast.errors import GimpError, counted, did_you_mean
from gimp_fast.external.result import LeftOut
from gimp_fast.inference.cautions import seen_patients
from gimp_fast.inference.model import TrainedModel
from gimp_fast.inference.same_columns import check_same_columns

_NAMED = 3  # patients and classes that an error names


@dataclass(frozen=True)
class NewPatients:
    """Patients whose truth is known and whom no model has seen.

    Attributes:
        case_ids: n of them.
        truth: (n,) places in the model's classes or numbers, or (n, 2) times and events.
        left_out: those who were asked for and are not here.
    """

    case_ids: tuple[str, ...]
    truth: np.ndarray
    left_out: LeftOut

    def predicted(self, rows: np.ndarray) -> NewPatients:
        """Those whom the model can predict, by (n,) bool."""
        cases = tuple(case for case, kept in zip(self.case_ids, rows, strict=True) if kept)
        left_out = replace(self.left_out, not_predicted=int((~rows).sum()))
        return NewPatients(cases, self.truth[rows], left_out)


def new_patients(
    models: Sequence[TrainedModel], cohort: Cohort, cases: Sequence[str], exclude_known: bool
) -> NewPatients:
    """The patients of ``cases`` on whom the models can be judged.

    Raises:
        GimpError: models or a cohort of different questions, fewer than two patients to judge by,
            or, unless they are to be excluded, patients of training or validation.
    """
    check_same_columns(models)
    target = asked_of(models, cohort)
    labelled = [case for case in cases if case in target.values]
    if not labelled:
        raise GimpError(
            f"{cohort.path}: found none of {counted(len(cases), 'patient')} whose "
            f"{_words(target.name)} is known; expected patients with it. `gimp-fast prepare` reads "
            "labels (--labels) and targets (--target)"
        )
    truth = target.truth(labelled)
    if models[0].classes:
        truth = _places(target, truth, models[0], cohort)
    known = known_in(models, cohort, labelled)
    if known and not exclude_known:
        raise GimpError(_refusal(cohort, known, len(labelled)))
    fresh = np.array([case not in known for case in labelled])
    kept = tuple(case for case in labelled if case not in known)
    if len(kept) < 2:
        but = f", but {counted(len(known), 'patient')} of training or validation" if known else ""
        raise GimpError(
            f"{cohort.path}: found {counted(len(kept), 'new patient')} whose "
            f"{_words(target.name)} is known{but}; expected two or more"
        )
    left_out = LeftOut(unlabelled=len(cases) - len(labelled), known=known)
    return NewPatients(kept, truth[fresh], left_out)


def asked_of(models: Sequence[TrainedModel], cohort: Cohort) -> CohortTarget:
    """What the cohort knows of the models' target; one with an empty name for its labels.

    Raises:
        GimpError: the models have different targets, or the cohort has none of this name, kind and
            unit.
    """
    names = {target_of(trained): trained for trained in models}
    if len(names) > 1:
        (one, first), (other, second) = list(names.items())[:2]
        raise GimpError(
            f"{second.source}: found a model of the target '{other or 'label'}'; expected "
            f"'{one or 'label'}' as in {first.source}"
        )
    name, kind = next(iter(names)), models[0].target.kind
    if not name:
        labels = {c: cohort.label(c) for c in cohort.case_ids if cohort.has_label(c)}
        return CohortTarget("", "class", labels, classes=cohort.classes)
    if name not in cohort.targets:
        has = f"the targets {', '.join(cohort.targets)}" if cohort.targets else "no target"
        raise GimpError(
            f"{cohort.path}: found {has}; expected '{name}', which {models[0].source} predicts"
            f"{did_you_mean(name, cohort.targets)}. `gimp-fast prepare --target {name}=…` reads it"
        )
    target = cohort.targets[name]
    if target.kind != kind:
        raise GimpError(
            f"{cohort.path}: found the target '{name}' of the kind {target.kind}; expected {kind}, "
            f"as {models[0].source} was trained on"
        )
    units = {target.unit, *(getattr(trained.target, "unit", "") for trained in models)}
    if len(units) > 1:
        trained_in = getattr(models[0].target, "unit", "")
        raise GimpError(
            f"{cohort.path}: found times of '{name}' in {target.unit or 'no unit'}; expected "
            f"{trained_in or 'no unit'}, as {models[0].source} was trained on"
        )
    return target


def target_of(trained: TrainedModel) -> str:
    """Name of the cohort's target that a model predicts; empty for the labels."""
    name = (trained.facts.get("target") or {}).get("name", "")
    return "" if name in targets.available() else name


def known_in(
    models: Sequence[TrainedModel], cohort: Cohort, cases: Sequence[str]
) -> dict[str, str]:
    """case_id -> how a model knows the patient, for those it was trained or chosen on."""
    found: dict[str, str] = {}
    for trained in models:
        found = seen_patients(trained, cohort, cases) | found
    return {case: found[case] for case in cases if case in found}


def _words(target: str) -> str:
    return f"target '{target}'" if target else "label"


def _places(
    target: CohortTarget, truth: np.ndarray, trained: TrainedModel, cohort: Cohort
) -> np.ndarray:
    """(n,) int64, places in the model's classes; GimpError for a class that it does not know."""
    counts = Counter(target.classes[place] for place in truth.tolist())
    unknown = [name for name in counts if name not in trained.classes]
    if unknown:
        named = ", ".join(f"'{name}' ({counts[name]})" for name in unknown[:_NAMED])
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        raise GimpError(
            f"{cohort.path}: found patients of the class {named}{more}; expected the classes of "
            f"{trained.source}: {', '.join(trained.classes)}. Rename the classes in the table of "
            "labels, or choose patients with --cases"
        )
    place = [trained.classes.index(target.classes[p]) if target.classes[p] in counts else -1
             for p in range(len(target.classes))]  # fmt: skip
    return np.array(place, np.int64)[truth]


def _refusal(cohort: Cohort, known: dict[str, str], of: int) -> str:
    named = "; ".join(f"{case} ({how})" for case, how in list(known.items())[:_NAMED])
    more = f"; and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
    return (
        f"{cohort.path}: found {len(known)} of {counted(of, 'patient')} on whom a model was "
        f"trained or chosen: {named}{more}; expected new patients, as results on others are no "
        "evidence. --exclude-known (in Python exclude_known=True) leaves them out"
    )
