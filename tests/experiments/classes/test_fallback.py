"""RNA alone as a fallback: the rule by hand, and that it is GiMP's own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from gimp_fast.experiments import main
from gimp_fast.experiments.catalog import experiment
from gimp_fast.experiments.classes.fallback import mix
from gimp_fast.experiments.classes.paper import FALLBACK
from gimp_fast.experiments.rows import chosen_rows
from gimp_fast.models.base import Representation
from gimp_fast.models.gimp import GiMP, GiMPConfig
from gimp_fast.models.inputs import Presence
from gimp_fast.runs.records import CasePredictions

CLASSES = ("a", "b")


def predictions(probabilities, labels, parts, cases=None):
    p = np.asarray(probabilities, float)
    p = np.stack([1 - p, p], 1)
    cases = np.array([f"P{n}" for n in range(len(p))] if cases is None else cases)
    return CasePredictions(CLASSES, cases, np.array(parts), np.array(labels), p.argmax(1), p)


PARTS = ("val",) * 4 + ("test",) * 2
LABELS = (0, 1, 0, 1, 0, 1)
RIGHT, WRONG = (0.2, 0.9, 0.1, 0.8, 0.3, 0.6), (0.9, 0.1, 0.8, 0.2, 0.7, 0.4)


@pytest.mark.parametrize(
    ("model", "rna", "weight"),
    [(RIGHT, WRONG, 1.0), (WRONG, RIGHT, 0.0), (RIGHT, RIGHT, 0.0)],
    ids=["slides-help", "slides-mislead", "no-difference"],
)
def test_validation_patients_choose_the_weight(model, rna, weight):
    mixed = mix(predictions(model, LABELS, PARTS), predictions(rna, LABELS, PARTS))
    assert mixed.weight == weight
    expected = model if weight else rna
    np.testing.assert_allclose(mixed.predictions.probabilities[:, 1], expected)
    assert mixed.predictions.predicted.tolist() == [int(p > 0.5) for p in expected]


def test_between_the_ends_log_probabilities_are_mixed():
    """Each is sure of half of the validation patients and wrong on the rest."""
    model, rna = (0.1, 0.9, 0.6, 0.4, 0.2, 0.5), (0.6, 0.4, 0.1, 0.9, 0.8, 0.3)
    mixed = mix(predictions(model, LABELS, PARTS), predictions(rna, LABELS, PARTS))
    assert mixed.weight == 0.5
    odds = np.log(np.array([model, rna]) / (1 - np.array([model, rna])))
    expected = 1 / (1 + np.exp(-odds.mean(0)))
    np.testing.assert_allclose(mixed.predictions.probabilities[:, 1], expected)


def test_labels_of_test_patients_change_nothing():
    pairs = [
        [predictions(p, [*LABELS[:4], *last], PARTS) for p in (RIGHT, WRONG)]
        for last in ((0, 1), (1, 0))
    ]
    first, second = (mix(*pair) for pair in pairs)
    assert first.weight == second.weight
    assert np.array_equal(first.predictions.probabilities, second.predictions.probabilities)


def test_patients_without_rna_keep_the_prediction_of_the_model():
    rna = predictions(RIGHT[:5], LABELS[:5], PARTS[:5], ["P4", "P3", "P2", "P1", "P0"])
    model = predictions(WRONG, LABELS, PARTS)
    mixed = mix(model, rna).predictions
    assert mixed.case_id.tolist() == model.case_id.tolist()
    assert mixed.probabilities[5].tolist() == pytest.approx(model.probabilities[5].tolist())


def test_it_is_the_rule_of_validated_fusion():
    """GiMP mixes the logits of its heads, the table probabilities: the results are the same."""
    torch.manual_seed(0)
    sizes = {"num_outputs": 2, "feature_dim": 4, "num_genes": 20, "dim": 8, "heads": 2}
    model = GiMP(GiMPConfig(**sizes, fusion="validated")).eval()
    everyone = Presence.of([True] * 40, torch.device("cpu"))
    representation = Representation(torch.randn(40, 16), everyone, everyone)
    labels = torch.arange(40) % 2
    ends = []
    for weight in (0.0, 1.0):
        model.fusion_weight.fill_(weight)
        ends.append(model.classify(representation).softmax(-1).double().detach().numpy()[:, 1])
    model.fit_to_validation(representation, labels)
    rna, fused = (predictions(p, labels.numpy(), ["val"] * 40) for p in ends)
    mixed = mix(fused, rna)
    assert mixed.weight == model.fusion_weight_of_both()
    found = model.classify(representation).softmax(-1).detach().numpy()
    np.testing.assert_allclose(mixed.predictions.probabilities, found, atol=1e-5)


def test_every_method_of_both_modalities_has_the_same_fallback():
    rows = {row.key: row for row in experiment("table1").rows}
    both = [key for key, row in rows.items() if row.modalities == "both" and not row.mixes]
    assert [row.mixes for row in rows.values() if row.mixes] == [(key, FALLBACK) for key in both]
    assert chosen_rows([experiment("table1")], ["mcat_fallback"]) == {
        "mcat_fallback", "mcat", FALLBACK,
    }  # fmt: skip
    assert chosen_rows([experiment("table1")], ["mcat"]) == {"mcat"}


def test_a_row_with_a_fallback_trains_nothing(cohort_folder, tiny, tmp_path, capsys):
    rows = ["--only", "logistic_regression_both_fallback", "--splits", "fold_0"]
    command = ["table1", "--data", str(cohort_folder), "--out", str(tmp_path), *tiny, *rows]
    assert main([*command, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "mixes the predictions of logistic_regression_both and gimp_rna" in shown
    assert main(command) == 0
    results = json.loads((tmp_path / "table1" / "results.json").read_text(encoding="utf-8"))
    assert results["num_runs"] == 2
    rows = {row["key"]: row["groups"]["fold"] for row in results["rows"]}
    mixed = rows["logistic_regression_both_fallback"]
    assert mixed["by_modality"]["weight"]["mean"] in [step / 10 for step in range(11)]
    assert mixed["test"]["accuracy"]["n"] == rows["gimp_rna"]["test"]["accuracy"]["n"]
