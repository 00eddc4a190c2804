"""Each warning has a patient or a cohort that deserves it, and none is given without reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gimp_fast
from gimp_fast.inference import cautions as warnings
from gimp_fast.inference.cautions import Caution, expression_cautions
from gimp_fast.inference.predictions import predict_cohort
from gimp_fast.training.ranges import TrainingRanges

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def trained(gimp_run):
    return gimp_fast.load(gimp_run)


def codes(trained, cohort, case):
    found = predict_cohort([trained], cohort, [case])
    return set(filter(None, found.table["warnings"][0].split(";")))


@pytest.fixture
def case(cohort):
    """A test patient with enough patches: nothing to warn of."""
    return next(c for c in cohort.split("split_0")["test"] if cohort.bag(c).num_patches >= 16)


def test_a_patient_like_those_of_training_is_not_warned_of(trained, cohort, case):
    assert codes(trained, cohort, case) == set()


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("encoder", "another", "encoder"),
        ("encoder", None, "encoder-unknown"),
        ("mpp", 0.25, "mpp"),
        ("patch_size", 512, "patch-size"),
        ("patch_order", "hilbert", "patch-order"),
        ("expression_transform", "log1p", "transform"),
        ("expression_facts", {"column": "tpm_unstranded"}, "expression-unit"),
    ],
)
def test_a_cohort_that_was_made_otherwise(trained, cohort, case, name, value, code):
    trained.trained_on.update(mpp=0.5, patch_size=256)
    cohort.mpp, cohort.patch_size = 0.54, 256  # within 10 %
    assert codes(trained, cohort, case) == set()
    setattr(cohort, name, value)
    found = predict_cohort([trained], cohort, [case])
    assert found.table["warnings"][0] == code
    (caution,) = found.cautions[case]
    assert "training: " in caution.message


def test_what_neither_side_records_is_not_warned_of(trained, cohort, case):
    trained.trained_on.update(encoder=None, mpp=None, patch_size=None)
    cohort.encoder = cohort.mpp = cohort.patch_size = None
    assert codes(trained, cohort, case) == set()


def test_slides_do_not_matter_to_a_model_of_rna(run_of, cohort, case):
    trained = gimp_fast.load(run_of("gimp", "rna"))
    cohort.encoder = "another"
    assert codes(trained, cohort, case) == set()
    trained = gimp_fast.load(run_of("gimp", "slide"))
    cohort.expression_transform = "log1p"
    assert codes(trained, cohort, case) == {"encoder"}


def test_genes_that_were_not_measured_are_counted(trained, cohort, case):
    cohort.missing_genes = cohort.gene_ids[:2]
    found = predict_cohort([trained], cohort, [case])
    assert found.cautions[case] == (Caution("genes-missing", "2 of 60 genes"),)


def test_patients_of_training(trained, cohort, case):
    parts = cohort.split("split_0")
    assert "training-patient" in codes(trained, cohort, parts["train"][0])
    assert "training-patient" in codes(trained, cohort, parts["val"][0])
    cohort.fingerprint = "another"  # as the same patients have in a cohort of their own
    assert "training-patient" in codes(trained, cohort, parts["train"][0])
    assert "training-patient" not in codes(trained, cohort, parts["test"][0])
    found = predict_cohort([trained], cohort, [parts["train"][0], parts["val"][0]])
    messages = [of_case[-1].message for of_case in found.cautions.values()]
    same = "patients: same id and expression and features"
    assert messages == [f"of the training {same}", f"of the validation {same}"]


def test_a_run_of_an_earlier_version_cannot_tell(trained, cohort):
    """Its patients are known by the cohort alone; of another cohort, it is said once."""
    trained.known_patients, trained.ranges = None, TrainingRanges()
    case = cohort.split("split_0")["train"][0]
    assert codes(trained, cohort, case) == {"training-patient"}
    (note,) = predict_cohort([trained], cohort, [case]).unchecked
    assert "small-bag cannot be checked" in note
    cohort.fingerprint = "another"
    found = predict_cohort([trained, trained], cohort, cohort.case_ids)
    assert set(found.table["warnings"]) == {""}
    note, _ = found.unchecked
    assert "training-patient cannot be checked" in note
    assert str(trained.source) in note


def test_small_bags(trained, cohort):
    sizes = {case: cohort.bag(case).num_patches for case in cohort.case_ids}
    train = [sizes[case] for case in cohort.split("split_0")["train"]]
    assert trained.ranges.fewest_patches == min(train)
    trained.ranges = TrainingRanges(fewest_patches=16)
    assert min(sizes.values()) < 16 < max(sizes.values())
    found = predict_cohort([trained], cohort, cohort.case_ids)
    for case, size in sizes.items():
        messages = [c.message for c in found.cautions[case] if c.code == "small-bag"]
        assert messages == ([f"{size} patches; training: 16 or more"] if size < 16 else [])


def test_patients_of_training_are_not_unusual(any_run, cohort):
    """A caution that fires for those whom the model knows says nothing about the others."""
    trained = gimp_fast.load(any_run)
    train = cohort.split("split_0")["train"]
    found = predict_cohort([trained], cohort, train)
    assert set(found.table["warnings"]) == {"training-patient"}


def test_a_label_that_the_model_does_not_know(trained, cohort, case):
    cohort.classes = tuple(f"NEW-{name}" for name in cohort.classes)
    assert codes(trained, cohort, case) == {"class-unknown"}
    assert predict_cohort([trained], cohort, [case]).metrics() == {}


@pytest.fixture
def expression(cohort):
    return cohort.expression(cohort.case_ids)


def all_codes(trained, values):
    return [{c.code for c in some} for some in expression_cautions(trained, values)]


def test_usual_expression_is_not_warned_of(trained, expression):
    assert all_codes(trained, expression) == [set()] * len(expression)


@pytest.mark.parametrize("share", [0.02, 0.2])
def test_genes_far_from_training(trained, expression, share):
    columns = np.arange(round(share * expression.shape[1]))
    far = trained.scaler.mean + 8 * trained.scaler.std
    expression[3, columns] = far[columns]
    found = all_codes(trained, expression)
    assert found[3] == ({"expression-range"} if share > 0.05 else set())
    assert found[4] == set()


def test_linear_values_for_a_model_of_logarithms(trained, expression):
    found = expression_cautions(trained, np.exp2(expression) - 1)
    assert all("expression-scale" in {c.code for c in some} for some in found)
    assert "looks linear" in found[0][0].message


def test_logarithms_for_a_model_of_linear_values(trained, expression):
    linear = np.exp2(expression) - 1
    trained.scaler = replace(trained.scaler, mean=linear.mean(0), std=linear.std(0))
    assert not any("expression-scale" in some for some in all_codes(trained, linear))
    found = expression_cautions(trained, expression)
    assert all("looks like log2" in some[0].message for some in found)


def test_genes_that_are_missing_do_not_shift_the_scale(trained, expression):
    expression[:, :40] = np.nan
    assert all_codes(trained, expression) == [set()] * len(expression)
    linear = np.exp2(expression) - 1
    assert all("expression-scale" in some for some in all_codes(trained, linear))
    expression[:] = np.nan
    assert all_codes(trained, expression) == [set()] * len(expression)


def test_without_scaling_there_is_nothing_to_compare_with(trained, expression):
    zeros, ones = np.zeros(60, np.float32), np.ones(60, np.float32)
    trained.scaler = replace(trained.scaler, mean=zeros, std=ones)
    assert all_codes(trained, expression * 100) == [set()] * len(expression)


def test_several_models_warn_together_and_each_code_is_once():
    a, b = Caution("mpp", "0.25; training: 0.5"), Caution("mpp", "0.25; training: 1")
    merged = warnings.merged([{"P": [a], "Q": []}, {"P": [a, b], "Q": []}])
    assert merged == {"P": (a, b), "Q": ()}
    assert warnings.codes_of(merged["P"]) == "mpp"
    assert warnings.counts(merged) == {"mpp": 1}
    assert "mpp  1/2  micrometres" in warnings.table_text(merged)
    assert warnings.table_text({"Q": ()}) == ""


def test_every_code_is_in_the_documentation():
    text = (ROOT / "docs" / "prediction.md").read_text(encoding="utf-8")
    assert [code for code in warnings.CODES if f"`{code}`" not in text] == []
