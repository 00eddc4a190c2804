"""A model of survival with a fallback: the rule, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from gimp_fast.evaluation.kaplan_meier import Outcomes
from gimp_fast.evaluation.survival import harrell_c
from gimp_fast.experiments.mixtures import WEIGHTS
from gimp_fast.experiments.survival.fallback import mix
from gimp_fast.runs.outcome_predictions import OutcomePredictions


def predictions(risk, seed=0, cases=None, events=True):
    rng = np.random.default_rng(seed)
    n = len(risk)
    cases = [f"P{number:02d}" for number in range(n)] if cases is None else cases
    time = rng.permutation(np.arange(1.0, n + 1))
    event = (rng.random(n) < 0.7) if events else np.zeros(n, bool)
    split = np.array(["val", "test"])[np.arange(n) % 2]
    survival = np.exp(-np.exp(np.asarray(risk)) * 0.3)
    columns = {"risk": np.asarray(risk, float), "survival_5": survival}
    return OutcomePredictions(
        np.array(cases), split, {"time": time, "event": event.astype(float)}, columns
    )


def standardised(found):
    risk, validation = found.predicted["risk"], found.split == "val"
    return (risk - risk[validation].mean()) / risk[validation].std()


def test_the_weight_is_the_one_of_the_best_validation_c_index():
    rng = np.random.default_rng(3)
    model, other = (predictions(rng.normal(size=60)) for _ in range(2))
    mixed = mix(model, other)
    validation = model.split == "val"
    known = Outcomes(model.truth["time"][validation], model.truth["event"][validation] > 0)
    both = standardised(model), standardised(other)
    found = [harrell_c(known, (w * both[0] + (1 - w) * both[1])[validation]) for w in WEIGHTS]
    assert mixed.weight == WEIGHTS[int(np.argmax(found))]
    expected = mixed.weight * both[0] + (1 - mixed.weight) * both[1]
    np.testing.assert_allclose(mixed.predictions.predicted["risk"], expected)


def test_a_model_that_orders_perfectly_is_kept_and_its_survival_with_it():
    other = predictions(np.random.default_rng(1).normal(size=40))
    model = predictions(-other.truth["time"] / 10)
    mixed = mix(model, other)
    assert mixed.weight > 0
    alone = mix(model, model)
    assert alone.weight == 0.0  # equally good weights: the smallest
    np.testing.assert_allclose(
        alone.predictions.predicted["survival_5"], model.predicted["survival_5"], atol=1e-5
    )


def test_patients_without_a_fallback_keep_their_own_risk():
    rng = np.random.default_rng(5)
    model = predictions(rng.normal(size=30))
    known = np.arange(30) % 3 > 0
    other = predictions(rng.normal(size=30))
    other = OutcomePredictions(
        other.case_id[known], other.split[known],
        *({name: values[known] for name, values in some.items()}
          for some in (other.truth, other.predicted)),
    )  # fmt: skip
    mixed = mix(model, other)
    np.testing.assert_allclose(mixed.predictions.predicted["risk"][~known],
                               standardised(model)[~known])  # fmt: skip


@pytest.mark.parametrize("risk", [np.zeros(20), np.arange(20.0)], ids=["constant", "rising"])
def test_validation_without_an_event_falls_back_altogether(risk):
    model = predictions(risk, events=False)
    mixed = mix(model, predictions(np.arange(20.0)[::-1], events=False))
    assert mixed.weight == 0.0
    assert np.isfinite(mixed.predictions.predicted["risk"]).all()
