"""Groups of new patients: by hospital, covariate, number of slides, and what they lack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gimp_fast.data import Cohort
from gimp_fast.data.cohort_covariates import NUMERIC, CohortCovariate
from gimp_fast.evaluation.independent import independent_difference
from gimp_fast.evaluation.intervals import cluster_weights, patient_weights
from gimp_fast.external.kinds import Kind, Sample
from gimp_fast.external.options import ValidateOptions
from gimp_fast.external.result import Group
from gimp_fast.external.units import Units

HOSPITAL, SLIDES, MODALITIES = "hospital", "number of slides", "modalities"
UNKNOWN = "not known"
_MANY = 3  # slides, from which on patients are one group


@dataclass(frozen=True)
class Members:
    """A group's name, and its patients, (n,) bool."""

    by: str
    name: str
    rows: np.ndarray


def units_of(cohort: Cohort, cases: Sequence[str], fewest: int) -> tuple[Units, np.ndarray | None]:
    """What the bootstrap draws, and, for hospitals, the (n,) number of each patient's."""
    sites = [cohort.site(case) for case in cases]
    known, n = sorted({site for site in sites if site is not None}), len(cases)
    if None in sites or len(known) < fewest:
        why = f"{len(known)} hospitals are known, fewer than {fewest}"
        if not known:
            why = "the cohort knows no hospital"
        elif None in sites:
            why = f"the hospital of {sites.count(None)} of {n} patients is not known"
        return Units("patients", n, why), None
    places = {site: place for place, site in enumerate(known)}
    cluster = np.array([places[site] for site in sites])
    return Units("hospitals", len(known), "all are known, each with all its patients"), cluster


def weights_of(count: int, cluster: np.ndarray | None, options: ValidateOptions) -> np.ndarray:
    """(resamples, n) of the bootstrap over patients, or over hospitals."""
    if cluster is None:
        return patient_weights(count, options.resamples, options.seed)
    return cluster_weights(cluster, options.resamples, options.seed)


def members(cohort: Cohort, cases: Sequence[str]) -> Iterator[Members]:
    """Every group of some patients; patients can be in a group of each sort."""
    sites = [cohort.site(case) or UNKNOWN for case in cases]
    if set(sites) != {UNKNOWN}:
        yield from _by_name(HOSPITAL, sites)
    for covariate in cohort.covariates.values():
        yield from _by_covariate(covariate, cases)
    slides = [len(cohort.bag(case).slide_ids) if cohort.has_slides(case) else 0 for case in cases]
    order = [str(count) for count in range(_MANY)] + [f"{_MANY} or more"]
    yield from _by_name(SLIDES, [order[min(count, _MANY)] for count in slides], order)
    lacks = {
        (True, True): "slides and RNA", (True, False): "slides only", (False, True): "RNA only"
    }  # fmt: skip
    has = [(cohort.has_slides(case), cohort.has_expression(case)) for case in cases]
    yield from _by_name(MODALITIES, [lacks.get(pair, "neither") for pair in has], [*lacks.values()])


def _by_covariate(covariate: CohortCovariate, cases: Sequence[str]) -> Iterator[Members]:
    """By level; numbers in thirds of these patients."""
    values = [covariate.values.get(case) for case in cases]
    if covariate.kind != NUMERIC:
        names = [UNKNOWN if value is None else str(value) for value in values]
        yield from _by_name(covariate.name, names, [*covariate.levels, UNKNOWN])
        return
    numbers = np.array([np.nan if value is None else value for value in values], np.float64)
    known = numbers[np.isfinite(numbers)]
    if len(known):
        low, high = np.quantile(known, [1 / 3, 2 / 3])
        thirds = {
            f"up to {low:.4g}": numbers <= low,
            f"above {low:.4g}, up to {high:.4g}": (numbers > low) & (numbers <= high),
            f"above {high:.4g}": numbers > high,
        }
        for name, rows in thirds.items():
            if rows.any():
                yield Members(covariate.name, name, rows)
    if len(known) < len(numbers):
        yield Members(covariate.name, UNKNOWN, np.isnan(numbers))


def _by_name(by: str, names: Sequence[str], order: Sequence[str] = ()) -> Iterator[Members]:
    """A group for each name that occurs, in this order or sorted."""
    array = np.array(names, dtype=object)
    for name in order or sorted(set(names), key=lambda name: (name == UNKNOWN, name)):
        if (array == name).any():
            yield Members(by, name, array == name)


def scored_groups(
    cohort: Cohort,
    cases: Sequence[str],
    sample: Sample,
    kind: Kind,
    cluster: np.ndarray | None,
    options: ValidateOptions,
) -> tuple[Group, ...]:
    """Every group with its main score and what that is more than the score of all others.

    Args:
        cohort, cases: the n patients.
        sample: one prediction of each.
        kind: of the target.
        cluster: (n,) the hospital of each if hospitals are drawn; patients are drawn for groups in
            too few of them, such as a hospital.
        options: of the bootstrap, and the smallest group.
    """
    of_patients = weights_of(len(cases), None, options)
    of_hospitals = None if cluster is None else weights_of(len(cases), cluster, options)
    found = []
    for group in members(cohort, cases):
        truth = sample.truth[group.rows]
        counts, count = kind.counts(truth), int(group.rows.sum())
        reason = kind.too_small(truth, options)
        if reason:
            found.append(Group(group.by, group.name, count, counts, reason=reason))
            continue
        weights, drawn = of_patients, "patients"
        if cluster is not None and len(set(cluster[group.rows])) >= options.fewest_hospitals:
            weights, drawn = of_hospitals, "hospitals"
        one = kind.main_drawn(sample.chosen(group.rows), weights)
        difference = None
        if not kind.too_small(sample.truth[~group.rows], options):
            rest = kind.main_drawn(sample.chosen(~group.rows), weights)
            difference = independent_difference(one, rest)
        score = None if one is None else one.estimate
        reason = "" if score else "the score is not defined"
        found.append(Group(group.by, group.name, count, counts, score, difference, drawn, reason))
    return tuple(found)
