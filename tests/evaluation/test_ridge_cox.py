"""Cox's model with a ridge penalty, against scikit-survival and its own optimality."""

from __future__ import annotations

import numpy as np
import pytest
from builders.outcomes import KINDS, random_outcomes

from gimp_fast.evaluation.kaplan_meier import Outcomes
from gimp_fast.evaluation.ridge_cox import fit_ridge_cox

SHAPES = [(7, 3), (50, 1), (60, 13), (40, 90)]


def features(n, width, seed=5):
    return np.random.default_rng(seed).normal(2, 3, (n, width))


@pytest.mark.parametrize(("n", "width"), SHAPES, ids=lambda v: str(v))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strength", [0.1, 30.0])
def test_coefficients_are_those_of_scikit_survival(n, width, kind, strength):
    linear_model = pytest.importorskip("sksurv.linear_model")
    from sksurv.util import Surv

    outcomes, x = random_outcomes(n, kind), features(n, width)
    found = fit_ridge_cox(x, outcomes, strength)
    z = (x - x.mean(0)) / x.std(0)
    model = linear_model.CoxPHSurvivalAnalysis(alpha=strength, ties="breslow", tol=1e-14)
    model.fit(z, Surv.from_arrays(outcomes.event, outcomes.time))
    np.testing.assert_allclose(found.coefficients, model.coef_, atol=1e-6)
    np.testing.assert_allclose(found.risk(x), z @ found.coefficients, atol=1e-12)


def test_the_likelihood_written_out_has_no_better_neighbour():
    outcomes, x = random_outcomes(30, "tied-times"), features(30, 4)
    model = fit_ridge_cox(x, outcomes, 2.0)
    z = (x - x.mean(0)) / x.std(0)

    def value(b):
        risk = z @ b
        terms = [
            risk[i] - np.log(np.exp(risk[outcomes.time >= outcomes.time[i]]).sum())
            for i in np.flatnonzero(outcomes.event)
        ]
        return sum(terms) - b @ b

    best, rng = value(model.coefficients), np.random.default_rng(0)
    steps = rng.normal(0, 1e-3, (50, 4))
    assert all(value(model.coefficients + step) < best for step in steps)


def test_a_feature_that_never_varies_has_no_effect():
    x = features(20, 3)
    x[:, 1] = 7.0
    model = fit_ridge_cox(x, random_outcomes(20), 1.0)
    assert model.coefficients[1] == 0
    assert np.isfinite(model.risk(x)).all()


def test_features_of_any_scale_do_not_overflow():
    x = features(40, 5) * 1e6
    model = fit_ridge_cox(x, random_outcomes(40, seed=3), 1e-3)
    assert np.isfinite(model.risk(x)).all()


@pytest.mark.parametrize(
    ("event", "strength", "message"),
    [(False, 1.0, "no event among 5 patients"), (True, 0.0, "strength: found 0.0")],
    ids=["no-event", "strength"],
)
def test_refusals(event, strength, message):
    outcomes = Outcomes(np.arange(1.0, 6.0), np.full(5, event))
    with pytest.raises(ValueError, match=message):
        fit_ridge_cox(features(5, 2), outcomes, strength)
