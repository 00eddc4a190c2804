"""The epoch of pre-training that a linear classifier of CLS_img chooses."""

from __future__ import annotations

import json

import pytest
from builders.runs import QUICK, train_run

from gimp_fast.runs.checkpoint import load_checkpoint
from gimp_fast.runs.folder import RunFolder

SMALL = ("pretrain.epochs=4", "pretrain.lr=1e-2", "model.dim=16")


def pretrained(out, cohort, *settings):
    """Validation scores of each epoch, and the epoch that was kept."""
    train_run(out, cohort, *QUICK, *SMALL, *settings)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    _, state = load_checkpoint(RunFolder(out).checkpoint("pretrain"))
    return [line["val"] for line in lines if line["stage"] == "pretrain"], state["epoch"]


@pytest.mark.parametrize(
    "method",
    [
        ("model.heads=2",),
        ("model.heads=2", "modalities=slide"),
        ("method=mgca", "model.heads=2"),
    ],
    ids=["gimp", "slides", "mgca"],
)
def test_the_epoch_of_the_best_probe_is_kept(cohort_folder, tmp_path, method):
    scores, kept = pretrained(tmp_path / "run", cohort_folder, "pretrain.keep=probe", *method)
    losses = [of_epoch["probe_loss"] for of_epoch in scores]
    assert len(set(losses)) == 4
    assert kept == 1 + losses.index(min(losses))
    assert all(0 <= of_epoch["probe_accuracy"] <= 1 for of_epoch in scores)


def test_the_last_epoch_is_kept_unless_asked(cohort_folder, tmp_path):
    scores, kept = pretrained(tmp_path / "run", cohort_folder, "model.heads=2")
    assert kept == 4
    assert "probe_loss" not in scores[0]
