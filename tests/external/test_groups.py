"""Groups of new patients: who is in which, what is drawn, and which are too small."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from gimp_fast.data.cohort_covariates import CohortCovariate
from gimp_fast.evaluation.rates import rates
from gimp_fast.external.groups import members, scored_groups, units_of
from gimp_fast.external.kinds import Sample
from gimp_fast.external.of_classes import Classes
from gimp_fast.external.of_survival import TimeToEvent
from gimp_fast.external.options import ValidateOptions

N = 60
CASES = tuple(f"P{number:02d}" for number in range(N))
OPTIONS = ValidateOptions(resamples=50, fewest_patients=10, fewest_events=3, fewest_hospitals=3)


@dataclass
class Patients:
    """What groups ask of a cohort."""

    sites: dict[str, str] = field(default_factory=dict)
    covariates: dict[str, CohortCovariate] = field(default_factory=dict)

    def site(self, case: str) -> str | None:
        return self.sites.get(case)

    def has_slides(self, case: str) -> bool:
        return case != "P00"

    def has_expression(self, case: str) -> bool:
        return case not in ("P01", "P02")

    def bag(self, case: str) -> SimpleNamespace:
        return SimpleNamespace(slide_ids=("a", "b", "c", "d")[: 1 + int(case[1:]) % 4])


def of_hospitals(count: int) -> dict[str, str]:
    return {case: f"H{place % count}" for place, case in enumerate(CASES)}


def counted(cohort: Patients, by: str) -> dict[str, int]:
    return {group.name: int(group.rows.sum()) for group in members(cohort, CASES) if group.by == by}


def sample_of(labels: np.ndarray) -> Sample:
    probability = np.random.default_rng(0).random(N)
    return Sample.of_models([np.stack([1 - probability, probability], axis=1)], labels)


def test_numbers_are_in_thirds_and_the_unknown_are_named():
    ages = {case: float(place) for place, case in enumerate(CASES[:51])}
    cohort = Patients(covariates={"age": CohortCovariate("age", "numeric", (), ages)})
    found = counted(cohort, "age")
    assert list(found.values()) == [17, 17, 17, 9]
    assert list(found)[-1] == "not known"


def test_equal_numbers_are_one_group():
    cohort = Patients(covariates={
        "grade": CohortCovariate("grade", "numeric", (), dict.fromkeys(CASES, 2.0))
    })  # fmt: skip
    assert counted(cohort, "grade") == {"up to 2": N}


def test_levels_slides_and_what_is_missing():
    sex = {case: "FM"[place % 2] for place, case in enumerate(CASES[:40])}
    cohort = Patients(covariates={"sex": CohortCovariate("sex", "categorical", ("F", "M"), sex)})
    assert counted(cohort, "sex") == {"F": 20, "M": 20, "not known": 20}
    assert counted(cohort, "number of slides") == {"0": 1, "1": 14, "2": 15, "3 or more": 30}
    found = counted(cohort, "modalities")
    assert found == {"slides and RNA": N - 3, "slides only": 2, "RNA only": 1}
    assert counted(cohort, "hospital") == {}


def test_hospitals_are_drawn_if_there_are_enough_and_all_are_known():
    units, cluster = units_of(Patients(of_hospitals(6)), CASES, 5)
    assert (units.name, units.count) == ("hospitals", 6)
    assert cluster[:7].tolist() == [0, 1, 2, 3, 4, 5, 0]
    for sites, why in (
        (of_hospitals(4), "4 hospitals are known, fewer than 5"),
        ({}, "the cohort knows no hospital"),
        ({case: site for case, site in of_hospitals(6).items() if case != "P03"}, "of 1 of 60"),
    ):
        units, cluster = units_of(Patients(sites), CASES, 5)
        assert (units.name, units.count, cluster) == ("patients", N, None)
        assert why in units.why


def test_a_hospital_is_drawn_by_patients_and_the_rest_by_hospitals():
    cohort = Patients(of_hospitals(4))
    _, cluster = units_of(cohort, CASES, 3)
    labels = np.arange(N) // 4 % 2
    found = scored_groups(cohort, CASES, sample_of(labels), Classes(("A", "B")), cluster, OPTIONS)
    drawn = {(group.by, group.name): group.drawn for group in found if group.score}
    assert drawn["hospital", "H0"] == "patients"
    assert drawn["modalities", "slides and RNA"] == "hospitals"


def test_a_score_is_of_its_group_and_its_difference_of_the_others():
    cohort, labels = Patients(of_hospitals(3)), np.arange(N) // 3 % 2
    sample = sample_of(labels)
    found = scored_groups(cohort, CASES, sample, Classes(("A", "B")), None, OPTIONS)
    group = next(group for group in found if group.name == "H1")
    rows = np.arange(N) % 3 == 1
    auc, rest = (rates(sample.predicted[some], labels[some])["auc"] for some in (rows, ~rows))
    assert group.patients == 20
    assert group.counts == {"A": 10, "B": 10}
    assert group.score.value == pytest.approx(auc)
    assert group.difference.value == pytest.approx(auc - rest)
    assert group.difference.low < group.difference.value < group.difference.high


@pytest.mark.parametrize(
    ("labels", "why"),
    [(np.arange(N) < 2, "fewer than 3 patients of a class"), (np.zeros(N), "fewer than 3")],
    ids=["few-of-a-class", "one-class"],
)
def test_groups_too_small_have_no_score(labels, why):
    cohort = Patients(of_hospitals(3))
    kind = Classes(("A", "B"))
    found = scored_groups(cohort, CASES, sample_of(labels.astype(int)), kind, None, OPTIONS)
    assert [group.score for group in found] == [None] * len(found)
    assert {g.reason for g in found if g.patients >= 10} == {
        next(g.reason for g in found if g.name == "H0")
    }
    assert why in next(g.reason for g in found if g.name == "H0")
    assert next(g.reason for g in found if g.name == "slides only") == "fewer than 10 patients"


def test_few_events_are_no_score():
    truth = np.stack([np.arange(1.0, N + 1), (np.arange(N) < 8).astype(float)], axis=1)
    sample = Sample.of_models([np.random.default_rng(0).random((N, 2))], truth)
    kind = TimeToEvent((5.0,), "days")
    found = scored_groups(Patients(of_hospitals(4)), CASES, sample, kind, None, OPTIONS)
    reasons = {group.name: group.reason for group in found if group.by == "hospital"}
    assert set(reasons.values()) == {"fewer than 3 events"}
    assert [group.counts for group in found if group.name == "H0"] == [{"events": 2}]
