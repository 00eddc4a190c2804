"""``predictions.csv`` of several targets: what is written is read, and damage is told."""

from __future__ import annotations

import numpy as np
import pytest

from gimp_fast.runs.outcome_predictions import OutcomePredictions
from gimp_fast.runs.patient_arrays import CasePredictions
from gimp_fast.runs.several_predictions import SeveralPredictions

CLASSES = ("=low", "high")  # a spreadsheet would compute the first
TRUTH, PREDICTED = ("time", "event"), ("risk", "survival_365")
READERS = {
    "os": lambda file, prefix: OutcomePredictions.read(file, TRUTH, PREDICTED, prefix),
    "grade": lambda file, prefix: CasePredictions.read(file, CLASSES, prefix),
}


def predictions():
    cases, parts = np.array(["a", "b", "c"]), np.array(["val", "test", "test"])
    outcomes = OutcomePredictions(
        cases, parts,
        {"time": np.array([3.5, np.nan, 8.0]), "event": np.array([1.0, np.nan, 0.0])},
        {"risk": np.array([-1.0, 0.5, 2.0]), "survival_365": np.array([0.9, 0.8, 0.25])},
    )  # fmt: skip
    probabilities = np.array([[0.75, 0.25], [0.5, 0.5], [0.125, 0.875]])
    grades = CasePredictions(
        CLASSES, cases, parts, np.array([0, 1, -1]), np.array([0, 0, 1]), probabilities
    )
    return SeveralPredictions({"os": outcomes, "grade": grades})


def test_what_is_written_is_read_again(tmp_path):
    written, file = predictions(), tmp_path / "predictions.csv"
    text = written.to_csv()
    assert text.splitlines()[0] == (
        "case_id,split,os_time,os_event,os_risk,os_survival_365,"
        "grade_label,grade_prediction,grade_prob_=low,grade_prob_high"
    )
    assert text.splitlines()[2].startswith("b,test,,,0.5,0.8,high,'=low")
    file.write_text(text, encoding="utf-8")
    found = SeveralPredictions.read(file, READERS)
    assert found.case_id.tolist() == ["a", "b", "c"]
    assert len(found) == 3
    for name, column in written.columns().items():
        np.testing.assert_array_equal(found.columns()[name], column)
    assert found.known["os"].case_id.tolist() == ["a", "c"]
    assert found.known["grade"].case_id.tolist() == ["a", "b"]
    assert found.known["grade"].of("test").label.tolist() == [1]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("a,val,3.5,1", "a,val,,1", "could not convert"),
        ("0.5,0.8", ",0.8", "could not convert"),
        ("a,val,3.5", "a,val,inf", "not finite"),
        ("test,,,0.5", "test,nan,nan,0.5", "not finite"),
        (",high,'=low", ",tall,'=low", r"column label: found \['tall'\]"),
        ("os_risk", "risk", r"columns \['os_risk'\] are missing"),
    ],
    ids=["half-an-outcome", "no-risk", "infinite", "nan", "class", "column"],
)
def test_damage_is_told(before, after, message, tmp_path):
    file, text = tmp_path / "predictions.csv", predictions().to_csv()
    assert before in text
    file.write_text(text.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        SeveralPredictions.read(file, READERS)


def test_without_a_prefix_no_truth_may_be_empty(tmp_path):
    file = tmp_path / "predictions.csv"
    file.write_text("case_id,split,time,event,risk,survival_365\na,test,,,1,0.5\n")
    with pytest.raises(ValueError, match="could not convert"):
        OutcomePredictions.read(file, TRUTH, PREDICTED)
