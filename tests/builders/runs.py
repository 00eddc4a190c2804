"""Run folders: trained ones, and one of made-up numbers in the real formats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml

from gimp_fast import models
from gimp_fast.runs.folder import RunFolder
from gimp_fast.runs.records import CasePredictions, Embeddings, Metrics
from gimp_fast.training import load_config, train

# Where a model has such a setting, it is small here.
SMALL = {"dim": 16, "heads": 2, "num_landmarks": 8, "attention_dim": 8, "query_dim": 8}
SMALL |= {"head_hidden": 16, "gene_fragments": 8, "gene_groups": 4}
QUICK = ["genes.epochs=1", "pretrain.epochs=1", "pretrain.window=16", "finetune.epochs=1"]
QUICK += ["bootstrap=20", "threads=1", "finetune.lr=1e-2"]
# Fewer stages, for what needs some run.
TINY = [*QUICK, "model.dim=8", "model.heads=2", "model.num_landmarks=8", "genes.epochs=0"]
TINY += ["pretrain.epochs=0", "finetune.freeze_genes=false"]
METHODS = [
    (name, modalities)
    for name in models.available()
    for modalities in models.model_class(name).reads
]
PARTS = ("train", "train", "train", "val", "test")


def train_run(out: Path, cohort: Path, *overrides: str) -> Path:
    """A run folder that training wrote."""
    config = load_config(overrides=[*overrides, f"data={cohort}"])
    train(config, cohort, out, log=lambda text: None)
    return out


def train_method(out: Path, cohort: Path, method: str, modalities: str) -> Path:
    """A run folder of a small model of any method."""
    fields = models.model_class(method).settings_class.model_fields
    sizes = [f"model.{name}={value}" for name, value in SMALL.items() if name in fields]
    return train_run(out, cohort, *QUICK, *sizes, f"method={method}", f"modalities={modalities}")


def made_up_run(
    folder: Path,
    classes: tuple[str, ...] = ("LUAD", "LUSC"),
    patients: int = 60,
    epochs: int = 12,
    stages: tuple[str, ...] = ("genes", "pretrain", "finetune"),
    modalities: str = "both",
    synthetic: bool = True,
    name: str = "made-up cohort",
    dim: int = 16,
) -> Path:
    """A run folder that no training wrote: every fifth patient is a test case."""
    folder.mkdir()
    run, rng = RunFolder(folder), np.random.default_rng(0)
    count = len(classes)
    label = np.arange(patients) % count
    split = np.array([PARTS[place // count % 5] for place in range(patients)], dtype=str)
    case_id = np.array([f"MADE-UP-{place:04d}" for place in range(patients)])
    scores = rng.normal(size=(patients, count)) + 2.2 * np.eye(count)[label]
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    rows = split != "train"
    predictions = CasePredictions(
        classes, case_id[rows], split[rows], label[rows],
        probabilities[rows].argmax(1), probabilities[rows],
    )  # fmt: skip
    run.write_config(yaml.safe_dump({"preset": "demo", "finetune": {"epochs": epochs, "lr": 1e-4}}))
    run.write_environment({"gimp_fast": "0.1.0", "torch": "2.13.0", "git": {"revision": None}})
    lines = [json.dumps(row) for row in _epochs(stages, epochs)]
    run.metrics_file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    run.write_predictions(predictions)
    vectors = {
        stage: rng.normal(size=(patients, dim)) + gap * (label[:, None] == np.arange(dim))
        for stage, gap in (("pretrain", 3.0), ("finetune", 6.0))
    }
    stored = {stage: vectors[stage].astype(np.float32) for stage in vectors if stage in stages}
    run.write_embeddings(Embeddings(case_id, split, np.array(classes)[label], stored))
    scores = _scores(predictions.of("test"))
    cohort = {"name": name, "synthetic": synthetic, "split": "random_0", "classes": classes}
    cohort["n"] = {part: int((split == part).sum()) for part in dict.fromkeys(PARTS)}
    run.write_metrics(
        Metrics(
            cohort=cohort, modalities=modalities, seed=0, best_epoch=max(1, epochs - 4),
            val=scores, test=scores if scores["n"] else None,
        )
    )  # fmt: skip
    return folder


def _scores(test: CasePredictions) -> dict:
    right = int(test.hits.sum())
    accuracy = right / len(test) if len(test) else 0.0
    return {
        "n": len(test),
        "accuracy": _estimate(accuracy) | {"k": right, "n": len(test)},
        "balanced_accuracy": _estimate(accuracy),
        "f1_macro": _estimate(accuracy),
        "auc": _estimate(0.94),
    }


def _estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": max(0.0, value - 0.05), "high": min(1.0, value + 0.04)}


def _epochs(stages: tuple[str, ...], count: int) -> list[dict]:
    rows = []
    for stage in stages:
        for epoch in range(1, count + 1):
            loss = 0.2 + 0.8 * np.exp(-epoch / 5)
            train, val = {"loss": loss}, {"loss": loss + 0.004 * epoch}
            if stage == "pretrain":
                train |= {"reconstruction": 0.8 * loss, "triplet": 0.2 * loss}
                val |= {"reconstruction": 0.85 * loss, "triplet": 0.25 * loss}
            else:
                train["accuracy"] = 1 - 0.45 * np.exp(-epoch / 6)
                val |= {"accuracy": 0.93 - 0.4 * np.exp(-epoch / 6), "auc": 0.97 - 0.3 / epoch}
            row = {"stage": stage, "epoch": epoch, "train": train, "val": val}
            rows.append(row | {"lr": 1e-4, "seconds": 1.0})
    return rows
