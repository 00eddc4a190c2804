"""Windows, masks, batches and scaling."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gimp_fast.training.covariate_scaling import CovariateScaler
from gimp_fast.training.loader import StepPlan
from gimp_fast.training.sampling import (
    HIDE_COVARIATES,
    HIDE_RNA,
    HIDE_SLIDES,
    PatientReader,
    read_patients,
)
from gimp_fast.training.scaling import GeneScaler


@pytest.fixture
def reader(cohort):
    scaler = GeneScaler.fit(cohort.expression(cohort.split("split_0")["train"]))
    return PatientReader(cohort, "both", scaler, cache_gb=1.0)


def bag_index(reader, case, rows):
    """Which row of the bag each row of a window is."""
    bag = reader.patches(case)
    return [int((bag == row).all(1).nonzero()[0]) for row in rows]


def test_long_bags_give_contiguous_windows_at_random_places(reader, cohort):
    case = max(cohort.case_ids, key=lambda c: cohort.bag(c).num_patches)
    rng = np.random.default_rng(0)
    starts = set()
    for _ in range(8):
        patches, masked = reader.window(case, 5, 0.5, rng)
        index = bag_index(reader, case, patches)
        assert index == list(range(index[0], index[0] + 5))
        assert masked.sum() == 2
        starts.add(index[0])
    assert len(starts) > 1


def test_short_bags_are_repeated_and_copies_share_their_mask(reader, cohort):
    case = min(cohort.case_ids, key=lambda c: cohort.bag(c).num_patches)
    total = cohort.bag(case).num_patches
    patches, masked = reader.window(case, 3 * total + 1, 0.5, np.random.default_rng(0))
    index = bag_index(reader, case, patches)
    assert index == [i % total for i in range(3 * total + 1)]
    first = masked[:total]
    assert first.sum() == round(total / 2)
    assert masked.tolist() == np.resize(first.numpy(), len(masked)).tolist()


def test_a_bag_of_one_patch_is_not_masked(reader, monkeypatch):
    class OneRow:
        num_patches = 1

    monkeypatch.setattr(type(reader.cohort), "bag", lambda self, case: OneRow())
    monkeypatch.setattr(PatientReader, "patches", lambda *args: torch.ones(1, 8))
    patches, masked = reader.window("any", 6, 0.9, np.random.default_rng(0))
    assert patches.shape == (6, 8)
    assert not masked.any()


def test_packed_batches_hold_whole_bags(reader, cohort):
    cases = list(cohort.case_ids[:5])
    inputs = reader.inputs(cases)
    for case, (start, stop) in zip(cases, inputs.bags.spans, strict=True):
        assert np.array_equal(inputs.patches[start:stop].numpy(), cohort.bag(case).read())
    assert reader.truth(cases).tolist() == [cohort.label(c) for c in cases]
    assert inputs.slide.everybody
    assert inputs.rna.everybody


def test_uncached_reading_gives_the_same(reader, cohort):
    uncached = PatientReader(cohort, "both", reader.scaler, cache_gb=0.0)
    case = cohort.case_ids[0]
    a, b = (r.window(case, 16, 0.5, np.random.default_rng(1)) for r in (reader, uncached))
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])


def test_modality_dropout_hides_one_of_two(reader, cohort):
    inputs = reader.inputs(cohort.case_ids[:3], hide=np.array([0, 1, 2]))
    assert inputs.slide.flags == (True, False, True)
    assert inputs.rna.flags == (True, True, False)
    assert len(inputs.bags) == 2


@pytest.fixture
def covariate_reader(cohort, reader):
    covariates = CovariateScaler.fit(cohort, ["age", "stage"], cohort.split("split_0")["train"])
    return PatientReader(cohort, "both", reader.scaler, cache_gb=1.0, covariates=covariates)


def test_hidden_covariates_are_those_of_a_patient_without_any(covariate_reader, cohort):
    cases = cohort.case_ids[:4]
    hide = np.array([0, HIDE_COVARIATES, HIDE_SLIDES, HIDE_RNA + HIDE_COVARIATES])
    inputs = covariate_reader.inputs(cases, hide)
    shown = covariate_reader.covariates(cohort.covariates, cases)
    nothing = covariate_reader.covariates({}, cases)
    assert not np.array_equal(shown, nothing)
    expected = np.stack([shown[0], nothing[1], shown[2], nothing[3]])
    np.testing.assert_array_equal(inputs.covariates.numpy(), expected)
    assert inputs.slide.flags == (True, True, False, True)
    assert inputs.rna.flags == (True, True, True, False)


@pytest.mark.parametrize("modalities", ["both", "slide"])
def test_dropout_hides_covariates_of_some_whatever_else_is_hidden(
    modalities, covariate_reader, cohort
):
    reader = covariate_reader
    if modalities == "slide":
        reader = PatientReader(cohort, "slide", None, 1.0, covariates=reader.covariates)
    hidden, hidden_slides, plans = [], [], [StepPlan(n, cohort.case_ids, (7,)) for n in range(5)]
    nothing = reader.covariates({}, cohort.case_ids[:1])[0]
    for plan in plans:
        inputs = read_patients(reader, 0.3, plan).inputs
        hidden += (inputs.covariates.numpy() == nothing).all(1).tolist()
        hidden_slides += [not flag for flag in inputs.slide.flags]
    none = read_patients(reader, 0.0, plans[0]).inputs.covariates.numpy()
    np.testing.assert_array_equal(none, reader.covariates(cohort.covariates, cohort.case_ids))
    assert 0.2 < np.mean(hidden) < 0.4
    both = np.logical_and(hidden, hidden_slides)
    assert both.any() == (modalities == "both")


def test_a_run_without_covariates_hides_as_ever(reader, covariate_reader, cohort):
    plan = StepPlan(3, cohort.case_ids, (0, 1), place=2)
    drawn = [rng.choice(3, p=[0.4, 0.3, 0.3]) for rng in plan.rngs()]
    for one in (reader, covariate_reader):
        inputs = read_patients(one, 0.6, plan).inputs
        assert inputs.slide.flags == tuple(choice != HIDE_SLIDES for choice in drawn)
        assert inputs.rna.flags == tuple(choice != HIDE_RNA for choice in drawn)


def test_scaler_is_fitted_on_what_it_is_given():
    expression = np.array([[1, 5, 2], [3, 5, 2.5]], np.float32)
    scaler = GeneScaler.fit(expression)
    np.testing.assert_allclose(scaler(expression), [[-1, 0, -1], [1, 0, 1]], atol=1e-6)


def test_hidden_slides_leave_an_empty_pack(reader, cohort):
    inputs = reader.inputs(cohort.case_ids[:1], hide=np.array([1]))
    assert inputs.patches.shape == (0, cohort.feature_dim)
    assert inputs.bags.bounds == (0,)
    assert not inputs.has_bags


def test_patients_to_predict_need_no_label(cohort):
    reader = PatientReader(cohort, "slide", None, cache_gb=0.0, labelled=False)
    assert reader.truth(cohort.case_ids[:2]).tolist() == [-1, -1]


@pytest.mark.parametrize("cache_gb", [0.0, 1.0])
def test_harmonised_genes_are_the_same_when_they_are_kept(cohort, cache_gb):
    scaler = GeneScaler.fit(cohort.expression(cohort.case_ids), harmonise="rank")
    reader, cases = PatientReader(cohort, "rna", scaler, cache_gb), list(cohort.case_ids[:7])
    expected = scaler(cohort.expression(cases))
    for order in ([0, 1, 2], [2, 5, 2, 0], list(range(7))):
        found, has_genes = reader.genes([cases[place] for place in order])
        assert all(has_genes)
        np.testing.assert_array_equal(found, expected[order])
