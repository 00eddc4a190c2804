"""Reads targets and covariates of the patients from a clinical table."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from gimp_fast.data.cohort_covariates import CohortCovariate
from gimp_fast.data.cohort_targets import CohortTarget
from gimp_fast.data.prepare.options import PrepareOptions
from gimp_fast.data.tables.clinical import open_clinical
from gimp_fast.data.tables.covariates import Covariate, Covariates, read_covariates
from gimp_fast.data.tables.outcomes import Outcome, TargetSpec, TargetValues, read_outcomes
from gimp_fast.errors import Faults, Read
from gimp_fast.files.table import open_table


@dataclass(frozen=True)
class JoinedTargets:
    """Targets and covariates of the whole table, what was left out, and what may be wrong."""

    targets: tuple[CohortTarget, ...] = ()
    covariates: tuple[CohortCovariate, ...] = ()
    notes: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()

    def of(self, case_ids: Collection[str]) -> tuple[CohortTarget, ...]:
        """The targets of some patients."""
        return tuple(target.of(case_ids) for target in self.targets)

    def strata(self) -> dict[str, str]:
        """case id -> a word by which new splits are stratified, from the first target.

        It is the class, whether there was an event, or the quarter of the number.
        """
        return dict(_strata(self.targets[0])) if self.targets else {}


def join_targets(options: PrepareOptions) -> Read[JoinedTargets]:
    """The targets of ``options.target`` and the covariates of ``options.covariates``."""
    faults = Faults()
    with faults.collect():
        specs = [TargetSpec.parse(text) for text in options.target]
        names = [name for text in options.covariates for name in text.split(",") if name]
        if not specs and not names:
            return Read(JoinedTargets())
        table = open_clinical(options.clinical or options.labels or options.cases)
        found = faults.take(read_outcomes(table, specs)) if specs else ()
        read = faults.take(read_covariates(table, names, specs)) if names else Covariates(())
        return faults.read(
            JoinedTargets(
                tuple(map(_target, found)),
                tuple(map(_covariate, read.columns)),
                tuple(note for one in (*found, read) for note in one.notes),
                tuple(caution for one in (*found, read) for caution in one.cautions),
            )
        )
    return faults.read(JoinedTargets())


def _covariate(found: Covariate) -> CohortCovariate:
    known = {case: value for case, value in found.values.items() if value is not None}
    return CohortCovariate(found.name, found.kind, found.levels, known)


def has_labels(options: PrepareOptions) -> bool:
    """Whether the table of labels has labels, which a cohort with other targets need not have."""
    if not options.labels or not options.target or options.labels.is_dir():
        return bool(options.labels)
    return options.label_column in open_table(options.labels).header


def _target(found: TargetValues) -> CohortTarget:
    if found.kind == "class":
        classes = tuple(sorted(set(found.values.values())))
        places = {case: classes.index(value) for case, value in found.values.items()}
        return CohortTarget(found.name, found.kind, places, classes=classes)
    values = {
        case: (value.time, value.event) if isinstance(value, Outcome) else value
        for case, value in found.values.items()
    }
    return CohortTarget(found.name, found.kind, values, found.unit)


def _strata(target: CohortTarget) -> Iterator[tuple[str, str]]:
    if target.kind == "class":
        yield from ((case, target.classes[place]) for case, place in target.values.items())
    elif target.kind == "survival":
        yield from ((c, "event" if e else "censored") for c, (_, e) in target.values.items())
    else:
        quarters = np.quantile(list(target.values.values()), [0.25, 0.5, 0.75])
        for case, value in target.values.items():
            yield case, f"quarter {1 + int(np.searchsorted(quarters, value, side='right'))}"
