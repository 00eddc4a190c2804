"""Survival scores of trained models: means over runs, intervals, paired comparisons."""

from __future__ import annotations

import numpy as np
import pytest
from builders.outcomes import followed_longer, random_outcomes, random_risk, random_survival

from gimp_fast.evaluation.comparison import holm
from gimp_fast.evaluation.intervals import patient_weights
from gimp_fast.evaluation.kaplan_meier import Outcomes, censoring_distribution
from gimp_fast.evaluation.survival import brier, dynamic_auc, harrell_c, integrated_brier, uno_c
from gimp_fast.evaluation.survival_predictions import (
    SurvivalPredictions,
    compare_all_c,
    compare_c,
    survival_metrics,
)

HORIZONS = np.array([3.0, 6.5])
CENSORING = {fold: censoring_distribution(followed_longer(seed=fold + 7)) for fold in range(2)}


def predictions(outcomes, risk, *, patient=None, split=0, run=0, horizons=HORIZONS, seed=3):
    n = len(outcomes)
    patient = np.arange(n) if patient is None else np.asarray(patient)
    codes = (np.broadcast_to(code, n) for code in (split, run))
    survival = random_survival(n, horizons, seed)
    return SurvivalPredictions(patient, *codes, outcomes, np.asarray(risk), survival, horizons)


def signal(outcomes, noise, seed=0):
    """Risks that know the times, more or less."""
    rng = np.random.default_rng(seed)
    return -np.log(outcomes.time) + noise * rng.normal(size=len(outcomes))


def test_scores_of_one_run_with_intervals():
    outcomes = random_outcomes(60)
    one, curve, weights = (
        predictions(outcomes, random_risk(60)),
        CENSORING[0],
        patient_weights(60, 300),
    )
    found = survival_metrics(one, weights, CENSORING)
    areas, mean = dynamic_auc(outcomes, one.risk, HORIZONS, curve)
    errors = brier(outcomes, one.survival, HORIZONS, curve)
    expected = {
        "c_index": harrell_c(outcomes, one.risk),
        "uno_c": uno_c(outcomes, one.risk, curve, tau=6.5),
        "mean_auc": mean,
        "auc_at_3": areas[0],
        "brier_at_3": errors[0],
        "auc_at_6.5": areas[1],
        "brier_at_6.5": errors[1],
        "integrated_brier": integrated_brier(outcomes, one.survival, HORIZONS, curve),
    }
    assert {name: estimate.value for name, estimate in found.items()} == pytest.approx(expected)
    draws = harrell_c(outcomes, one.risk, weights)
    ends = found["c_index"].low, found["c_index"].high
    assert ends == pytest.approx(np.percentile(draws, [2.5, 97.5]))
    assert all(estimate.low < estimate.value < estimate.high for estimate in found.values())


def test_each_run_has_its_own_scores_and_the_censoring_of_its_fold():
    """Risks of another scale, and the other half of the patients, in the second fold."""
    outcomes = random_outcomes(60)
    fold = np.arange(60) % 2
    risk = np.where(fold == 1, 1000 + 5 * random_risk(60), random_risk(60))
    both = predictions(outcomes, risk, split=fold, run=fold)
    found = survival_metrics(both, patient_weights(60, 100), CENSORING)
    parts = [(outcomes.chosen(fold == k), risk[fold == k], CENSORING[k]) for k in (0, 1)]
    expected = np.mean([harrell_c(some, scores) for some, scores, _ in parts])
    assert found["c_index"].value == pytest.approx(expected)
    expected = np.mean([uno_c(some, scores, curve, tau=6.5) for some, scores, curve in parts])
    assert found["uno_c"].value == pytest.approx(expected)
    expected = np.mean([dynamic_auc(some, r, HORIZONS, curve)[1] for some, r, curve in parts])
    assert found["mean_auc"].value == pytest.approx(expected)


def test_patients_of_several_seeds_are_drawn_with_all_their_predictions():
    outcomes, rows = random_outcomes(30), np.r_[np.arange(30), np.arange(30)]
    twice = predictions(
        outcomes.chosen(rows), random_risk(60), patient=rows, run=np.repeat([0, 1], 30)
    )
    weights = patient_weights(30, 50)
    found = survival_metrics(twice, weights, CENSORING)["c_index"]
    draws = [harrell_c(outcomes, risk, weights) for risk in (twice.risk[:30], twice.risk[30:])]
    assert (found.low, found.high) == pytest.approx(np.percentile(np.mean(draws, 0), [2.5, 97.5]))


def test_a_run_without_a_comparable_pair_does_not_count():
    outcomes = random_outcomes(40)
    alone = Outcomes(np.r_[outcomes.time, 9.0], np.r_[outcomes.event, False])
    run = np.r_[np.zeros(40, int), 1]
    found = survival_metrics(
        predictions(alone, random_risk(41), run=run), patient_weights(41, 50), CENSORING
    )
    expected = harrell_c(outcomes, random_risk(41)[:40])
    assert found["c_index"].value == pytest.approx(expected)


def test_scores_that_no_run_has_are_none():
    outcomes = Outcomes(np.arange(1.0, 11), np.zeros(10, bool))
    found = survival_metrics(
        predictions(outcomes, np.arange(10.0), horizons=HORIZONS[:1]),
        patient_weights(10, 50),
        CENSORING,
    )
    assert {name for name, estimate in found.items() if estimate is None} == {
        "c_index", "uno_c", "mean_auc", "auc_at_3",
    }  # fmt: skip
    assert set(found) - {"brier_at_3"} == {"c_index", "uno_c", "mean_auc", "auc_at_3"}
    assert found["brier_at_3"].low <= found["brier_at_3"].value <= found["brier_at_3"].high


def test_a_better_model_has_a_higher_c():
    outcomes = random_outcomes(80)
    good, bad = (predictions(outcomes, signal(outcomes, noise)) for noise in (0.3, 3))
    weights = patient_weights(80, 499)
    found = compare_c(good, bad, weights)
    expected = harrell_c(outcomes, good.risk) - harrell_c(outcomes, bad.risk)
    assert found.value == pytest.approx(expected)
    draws = harrell_c(outcomes, good.risk, weights) - harrell_c(outcomes, bad.risk, weights)
    assert (found.low, found.high) == pytest.approx(np.percentile(draws, [2.5, 97.5]))
    assert found.low > 0
    assert found.p == pytest.approx(2 / 500)
    assert found.patients == 80
    back = compare_c(bad, good, weights)
    assert (back.value, back.p) == (-found.value, found.p)


def test_equal_models_do_not_differ():
    outcomes = random_outcomes(30)
    same = predictions(outcomes, random_risk(30))
    found = compare_c(same, same, patient_weights(30, 100))
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_only_patients_and_folds_of_both_are_compared():
    outcomes, risk = random_outcomes(50), random_risk(50)
    rows = np.arange(10, 50)
    all_of_them = predictions(outcomes, risk)
    some = predictions(outcomes.chosen(rows), random_risk(40, seed=9), patient=rows)
    found = compare_c(all_of_them, some, patient_weights(50, 100))
    here = outcomes.chosen(rows)
    assert found.value == pytest.approx(harrell_c(here, risk[rows]) - harrell_c(here, some.risk))
    assert found.patients == 40
    other_fold = predictions(outcomes, risk, split=1)
    assert compare_c(all_of_them, other_fold, patient_weights(50, 100)) is None
    censored = predictions(Outcomes(outcomes.time, np.zeros(50, bool)), risk)
    assert compare_c(censored, censored, patient_weights(50, 100)) is None


def test_p_values_are_corrected_for_the_number_of_models():
    outcomes = random_outcomes(60)
    noises = {"reference": 1.0, "better": 0.2, "similar": 1.05, "worse": 5.0}
    models = {
        key: predictions(outcomes, signal(outcomes, noise, seed=i))
        for i, (key, noise) in enumerate(noises.items())
    }
    models["alien"] = predictions(outcomes, random_risk(60), split=1)
    weights = patient_weights(60, 300)
    found = compare_all_c(models, "reference", weights)
    assert list(found) == ["better", "similar", "worse"]
    plain = [compare_c(models[key], models["reference"], weights).p for key in found]
    assert [test.p for test in found.values()] == plain
    assert [test.p_holm for test in found.values()] == holm(plain)
    assert holm(plain) != plain
    assert compare_all_c(models, "nobody", weights) == {}
