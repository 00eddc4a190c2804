"""Survival curves and scores beside scikit-survival, to 1e-10; what it refuses, we do too."""

from __future__ import annotations

import numpy as np
import pytest
from builders.outcomes import (
    followed_longer,
    horizons_of,
    of_every_kind,
    of_every_size,
    or_nan,
    random_outcomes,
    random_risk,
    random_survival,
)

from gimp_fast.evaluation.breslow import breslow
from gimp_fast.evaluation.kaplan_meier import censoring_distribution, kaplan_meier, logrank
from gimp_fast.evaluation.survival import brier, dynamic_auc, harrell_c, integrated_brier, uno_c

sksurv = pytest.importorskip("sksurv")
compare = pytest.importorskip("sksurv.compare")
linear_model = pytest.importorskip("sksurv.linear_model")
metrics = pytest.importorskip("sksurv.metrics")
nonparametric = pytest.importorskip("sksurv.nonparametric")
util = pytest.importorskip("sksurv.util")

pytestmark = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of the peer


def theirs(outcomes):
    return util.Surv.from_arrays(outcomes.event, outcomes.time)


def equal(found, expected):
    return found == pytest.approx(expected, rel=1e-10, abs=1e-12, nan_ok=True)


@of_every_kind
@of_every_size
def test_curves(n, kind):
    outcomes = random_outcomes(n, kind)
    event, time = outcomes.event, outcomes.time
    times, survival, interval = nonparametric.kaplan_meier_estimator(
        event, time, conf_type="log-log"
    )
    curve = kaplan_meier(outcomes)
    assert equal(curve.times, times)
    assert equal(curve.survival, survival)
    assert equal(np.array(curve.interval()), interval)
    fitted = nonparametric.SurvivalFunctionEstimator().fit(theirs(outcomes))
    assert equal(curve.at(horizons_of(outcomes)), fitted.predict_proba(horizons_of(outcomes)))
    _, uncensored = nonparametric.kaplan_meier_estimator(event, time, reverse=True)
    assert equal(censoring_distribution(outcomes).survival, uncensored)


@of_every_kind
@pytest.mark.parametrize("groups", [2, 3, 5])
def test_logrank(kind, groups):
    outcomes = random_outcomes(101, kind)
    group = np.arange(101) ** 2 % groups
    group[:groups] = np.arange(groups)
    _, p = compare.compare_survival(theirs(outcomes), group)
    assert equal(logrank(*(outcomes.chosen(group == k) for k in range(groups))), p)


@of_every_kind
@of_every_size
def test_harrell(n, kind):
    outcomes, risk = random_outcomes(n, kind), random_risk(n)
    expected = or_nan(
        lambda: metrics.concordance_index_censored(outcomes.event, outcomes.time, risk)[0]
    )
    assert equal(or_nan(harrell_c, outcomes, risk), expected)


@pytest.mark.parametrize("tau", [None, "a-time", "between-times"])
@of_every_kind
@of_every_size
def test_uno(n, kind, tau):
    outcomes, risk, others = random_outcomes(n, kind), random_risk(n), followed_longer()
    at = np.median(outcomes.time)
    tau = {None: None, "a-time": outcomes.time[n // 2], "between-times": at + 1e-3}[tau]
    expected = or_nan(
        lambda: metrics.concordance_index_ipcw(theirs(others), theirs(outcomes), risk, tau)[0]
    )
    assert equal(or_nan(uno_c, outcomes, risk, censoring_distribution(others), None, tau), expected)


@pytest.mark.parametrize("per_horizon", [False, True], ids=["one-risk", "risk-per-horizon"])
@of_every_kind
@of_every_size
def test_areas(n, kind, per_horizon):
    outcomes, others = random_outcomes(n, kind), followed_longer()
    horizons = horizons_of(outcomes)
    risk = random_risk(n)
    if per_horizon:
        risk = np.stack([random_risk(n, seed) for seed in range(len(horizons))], axis=1)
    expected = or_nan(
        lambda: np.r_[
            metrics.cumulative_dynamic_auc(theirs(others), theirs(outcomes), risk, horizons)
        ]
    )
    once = np.ones((1, n))
    areas, means = dynamic_auc(outcomes, risk, horizons, censoring_distribution(others), once)
    assert equal(np.r_[areas[0], means], np.broadcast_to(expected, len(horizons) + 1))


@of_every_kind
@of_every_size
def test_brier(n, kind):
    outcomes, others = random_outcomes(n, kind), followed_longer()
    horizons, curve = horizons_of(outcomes), censoring_distribution(others)
    survival = random_survival(n, horizons)
    arguments = theirs(others), theirs(outcomes), survival, horizons
    expected = or_nan(lambda: metrics.brier_score(*arguments)[1])
    assert equal(or_nan(brier, outcomes, survival, horizons, curve), expected)
    expected = or_nan(metrics.integrated_brier_score, *arguments)
    assert equal(or_nan(integrated_brier, outcomes, survival, horizons, curve), expected)


@pytest.mark.parametrize("n", [50, 301])
@pytest.mark.parametrize("kind", ["half-censored", "mostly-censored"])
def test_with_the_censoring_of_the_patients_themselves(kind, n):
    """All are defined here, so these tests compare numbers."""
    outcomes, risk = random_outcomes(n, kind), random_risk(n)
    outcomes.event[np.argmax(outcomes.time)] = False
    horizons, curve = horizons_of(outcomes), censoring_distribution(outcomes)
    survival = random_survival(n, horizons)
    both = theirs(outcomes), theirs(outcomes)
    areas, mean = dynamic_auc(outcomes, risk, horizons, curve)
    their_areas, their_mean = metrics.cumulative_dynamic_auc(*both, risk, horizons)
    assert equal(areas, their_areas)
    assert equal(mean, their_mean)
    assert equal(uno_c(outcomes, risk, curve), metrics.concordance_index_ipcw(*both, risk)[0])
    expected = metrics.integrated_brier_score(*both, survival, horizons)
    assert equal(integrated_brier(outcomes, survival, horizons, curve), expected)


@of_every_kind
@pytest.mark.parametrize("n", [7, 50, 301])
def test_breslow_beside_a_fitted_cox_model(n, kind):
    outcomes = random_outcomes(n, kind)
    rng = np.random.default_rng(5)
    features, asked = rng.normal(size=(n, 2)), rng.normal(size=(9, 2))
    cox = linear_model.CoxPHSurvivalAnalysis(alpha=1.0, ties="breslow").fit(
        features, theirs(outcomes)
    )
    horizons = np.r_[outcomes.time[: n // 2], outcomes.time.max()]
    expected = [curve(horizons) for curve in cox.predict_survival_function(asked)]
    baseline = breslow(outcomes, features @ cox.coef_)
    assert equal(baseline.survival(asked @ cox.coef_, horizons), np.array(expected))
