"""Scores in words."""

from __future__ import annotations

import pytest

from gimp_fast.runs.score_texts import (
    difference_text,
    fusion_text,
    metrics_text,
    modality_lines,
    modality_note,
    p_text,
    signed,
)
from gimp_fast.runs.scores import ByModality, Fusion, PairedDifference, SplitMetrics

ACCURACY = {"value": 0.5, "low": 0.1, "high": 0.9, "k": 4, "n": 8}


@pytest.mark.parametrize(
    ("p", "text"), [(0.0004, "p < 0.001"), (0.0512, "p = 0.051"), (1, "p = 1.000")]
)
def test_p(p, text):
    assert p_text(p) == text


def test_signs():
    assert [signed(value) for value in (0.1, -0.02, 0.0001, -0.0001)] == [
        "+0.100", "−0.020", "0.000", "0.000",
    ]  # fmt: skip


def test_a_difference_without_interval_or_p():
    assert difference_text(PairedDifference(value=-0.5)) == "−0.500"
    whole = PairedDifference(value=-0.021, low=-0.06, high=0.018, p=0.344)
    assert difference_text(whole) == "−0.021 (−0.060 to +0.018), p = 0.344"


def test_an_auc_that_does_not_exist_is_said():
    text = metrics_text({"accuracy": ACCURACY, "auc": None})
    assert text.startswith("accuracy 0.500 (4/8, 95 % CI 0.100 to 0.900)")
    assert "AUC undefined" in text


@pytest.mark.parametrize(
    ("weight", "words"),
    [(0.0, "slides are not used"), (0.3, "0.7 those of RNA alone"), (1.0, "not that of RNA alone")],
)
def test_what_a_weight_means(weight, words):
    text = fusion_text(Fusion(weight=weight, chosen_on=40))
    assert text.startswith(f"weight {weight:g}, chosen by the 40 validation patients")
    assert words in text


def test_a_model_that_never_lacked_a_modality_is_told():
    both = SplitMetrics(n=8, accuracy=ACCURACY)
    note = modality_note(ByModality(n=8, of=8, seen_in_training=False, both=both))
    assert "never learned to do with one" in note
    note = modality_note(ByModality(n=8, of=9, seen_in_training=True, both=both))
    assert "never learned" not in note
    assert "Only the 8 of 9 test patients" in note


def with_covariates(**changes):
    """A record of survival with covariates."""
    c_index = {"value": 0.7, "low": 0.6, "high": 0.8}
    part = {"n": 9, "c_index": c_index, "c_index_difference": {"value": -0.1, "p": 0.2}}
    parts = {name: part for name in ("rna", "slide", "without_covariates", "covariates")}
    facts = {"n": 9, "of": 9, "seen_in_training": True, "with_covariates": 9}
    facts |= {"covariates_hidden_in_training": True, "both": {"n": 9, "c_index": c_index}}
    return ByModality.model_validate(facts | parts | changes)


def test_parts_are_named_by_what_is_shown():
    lines = dict(modality_lines(with_covariates()))
    assert list(lines) == [
        "slides, RNA and covariates",
        "RNA and covariates",
        "slides and covariates",
        "slides and RNA, without covariates",
        "covariates alone",
    ]
    text = "C-index 0.700 (95 % CI 0.600 to 0.800) (9 patients)"
    assert lines.pop("slides, RNA and covariates") == text
    assert set(lines.values()) == {f"{text}; C-index −0.100, p = 0.200 against all"}


def test_a_model_of_slides_and_covariates_has_three_lines():
    scores = with_covariates(reads="slide", rna=None, slide=None)
    assert [shown for shown, _ in modality_lines(scores)] == [
        "slides and covariates", "slides, without covariates", "covariates alone",
    ]  # fmt: skip
    assert all(text.endswith("against both") for _, text in list(modality_lines(scores))[1:])
    assert "All 9 test patients are compared." in modality_note(scores)


def test_a_part_that_cannot_be_said_has_a_reason():
    scores = with_covariates(covariates=None, refused={"covariates": "it is not finite"})
    assert dict(modality_lines(scores))["covariates alone"] == "not possible: it is not finite"


@pytest.mark.parametrize(
    ("changes", "said", "unsaid"),
    [
        ({}, "All of them have covariates.", "never learned"),
        ({"with_covariates": 4}, "Of them, 4 have covariates.", "never learned"),
        ({"covariates_hidden_in_training": False}, "no patient lacked all covariates", "modality,"),
        ({"with_covariates": None}, "the other modality hidden", "ovariates"),
    ],
    ids=["all", "some", "never-lacked", "none-read"],
)
def test_the_note_says_who_has_covariates(changes, said, unsaid):
    note = modality_note(with_covariates(**changes))
    assert said in note
    assert unsaid not in note
