"""Reads the targets of the patients: what a model can be trained on besides their label."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from gimp_fast.data.cohort_targets import CohortTarget
from gimp_fast.data.prepare.options import PrepareOptions
from gimp_fast.data.tables.clinical import open_clinical
from gimp_fast.data.tables.outcomes import Outcome, TargetSpec, TargetValues, read_outcomes
from gimp_fast.errors import Faults, Read
from gimp_fast.files.table import open_table


@dataclass(frozen=True)
class JoinedTargets:
    """Targets of the whole table, and sentences on what was left out and what may be wrong."""

    targets: tuple[CohortTarget, ...] = ()
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
    """The targets of ``options.target``; none without any."""
    faults = Faults()
    with faults.collect():
        specs = [TargetSpec.parse(text) for text in options.target]
        if not specs:
            return Read(JoinedTargets())
        found = faults.take(read_outcomes(open_clinical(options.clinical or options.labels), specs))
        return faults.read(
            JoinedTargets(
                tuple(map(_target, found)),
                tuple(note for target in found for note in target.notes),
                tuple(caution for target in found for caution in target.cautions),
            )
        )
    return faults.read(JoinedTargets())


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
