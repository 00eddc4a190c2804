"""``experiments survival``: the table of survival, of one cohort or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gimp_fast.data import Cohort
from gimp_fast.errors import GimpError, did_you_mean
from gimp_fast.experiments.carry_out import Asked, OnCohort
from gimp_fast.experiments.document import write_document
from gimp_fast.experiments.plan import Shared
from gimp_fast.experiments.survival.document import document
from gimp_fast.experiments.survival.results import OfCohort, summarise

# Decided by options of this table, so that all rows agree.
_BY_OPTION = {"target": "--target", "covariates": "--covariates"}
_QUARTILES = (0.25, 0.5, 0.75)


def prepared(
    asked: Asked,
    cohorts: Sequence[Cohort],
    shared: Shared,
    target: str | None,
    covariates: Sequence[str] | None,
) -> list[OnCohort]:
    """The work on each cohort; GimpError for what the options say and a cohort lacks."""
    for text in shared.overrides:
        key = text.partition("=")[0].strip()
        if key in _BY_OPTION:
            raise GimpError(f"--set {text}: the option {_BY_OPTION[key]} decides it")
    names = [cohort.name for cohort in cohorts]
    if same := {name for name in names if names.count(name) > 1}:
        raise GimpError(
            f"--data: found several cohorts called {', '.join(sorted(same))}; expected a name for "
            "each, as `prepare --name` gives it"
        )
    return [
        OnCohort(asked, cohort, shared_of(cohort, shared, target, covariates)) for cohort in cohorts
    ]


def shared_of(
    cohort: Cohort, shared: Shared, target: str | None, covariates: Sequence[str] | None
) -> Shared:
    """What all rows share on this cohort: target, covariates and horizons."""
    name = _target(cohort, target)
    unknown = [each for each in covariates or () if each not in cohort.covariates]
    if unknown and cohort.covariates:
        has = ", ".join(cohort.covariates)
        near = did_you_mean(unknown[0], cohort.covariates)
        raise GimpError(f"--covariates: found '{unknown[0]}'; {cohort.path} has {has}{near}")
    names = tuple(cohort.covariates) if covariates is None else tuple(covariates)
    horizons = ()
    if not any(text.startswith("survival.horizons=") for text in shared.overrides):
        truth = cohort.truth(list(cohort.targets[name].values), name)
        times = np.quantile(truth[truth[:, 1] > 0, 0], _QUARTILES)
        horizons = tuple(np.unique([float(f"{time:.4g}") for time in times]).tolist())
    return replace(shared, target=name, covariates=names, horizons=horizons)


def _target(cohort: Cohort, asked: str | None) -> str:
    """The target of this name, or the only one of survival."""
    of_survival = [name for name, one in cohort.targets.items() if one.kind == "survival"]
    has = ", ".join(of_survival) or "none"
    if asked is None and len(of_survival) != 1:
        raise GimpError(
            f"{cohort.path}: has these targets of survival: {has}; expected one, or its name "
            "with --target. `prepare --target os=survival:TIME,EVENT` reads one"
        )
    name = of_survival[0] if asked is None else asked
    if name not in of_survival:
        near = did_you_mean(name, of_survival)
        raise GimpError(
            f"--target: found '{name}'; targets of survival in {cohort.path}: {has}{near}"
        )
    if not any(event for _, event in cohort.targets[name].values.values()):
        raise GimpError(f"{cohort.path}: target '{name}' has no event; expected some")
    return name


def make_table(asked: Asked, works: Sequence[OnCohort], out: Path) -> tuple[int, int, int]:
    """Train, and write the table; returns runs that are done, that were wanted, that failed."""
    parts = []
    for work in works:
        if len(works) > 1:
            print(f"{work.cohort.name}:", flush=True)
        parts.append(OfCohort(*work.train(), work.shared.target))
    (table,) = asked.tables
    print(f"{table.title}: computing intervals and drawing figures", flush=True)
    results = summarise(table, parts)
    page = write_document(document(results), out / table.name)
    print(f"{table.title}: {page}")
    return len(results.finished), results.num_runs, len(results.errors)
