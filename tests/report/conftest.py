"""A run folder that no training wrote: made-up numbers in the real formats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

RunFactory = Callable[..., Path]


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
            rows.append(
                {
                    "stage": stage,
                    "epoch": epoch,
                    "train": train,
                    "val": val,
                    "lr": 1e-4,
                    "seconds": 1.0,
                }
            )
    return rows


def _predictions(case_ids, splits, labels, classes, rng) -> pd.DataFrame:
    truth = np.array([classes.index(label) for label in labels])
    scores = rng.normal(size=(len(truth), len(classes))) + 2.2 * np.eye(len(classes))[truth]
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    table = pd.DataFrame({"case_id": case_ids, "split": splits, "label": labels})
    table["prediction"] = [classes[i] for i in probabilities.argmax(axis=1)]
    for i, name in enumerate(classes):
        table[f"prob_{name}"] = probabilities[:, i]
    return table[table["split"] != "train"]


@pytest.fixture
def make_run(tmp_path) -> RunFactory:
    """``make_run(classes=..., patients=..., ...)`` writes a run folder and returns its path."""

    def make(
        classes: tuple[str, ...] = ("LUAD", "LUSC"),
        patients: int = 60,
        epochs: int = 12,
        stages: tuple[str, ...] = ("genes", "pretrain", "finetune"),
        modalities: str = "both",
        synthetic: bool = True,
        name: str = "made-up cohort",
        dim: int = 16,
    ) -> Path:
        rng = np.random.default_rng(0)
        folder = tmp_path / "run"
        folder.mkdir()
        labels = np.array([classes[i % len(classes)] for i in range(patients)])
        splits = np.array(
            [
                ("train", "train", "train", "val", "test")[i // len(classes) % 5]
                for i in range(patients)
            ]
        )
        case_ids = np.array([f"MADE-UP-{i:04d}" for i in range(patients)])
        counts = {split: int((splits == split).sum()) for split in ("train", "val", "test")}

        table = _predictions(case_ids, splits, labels, list(classes), rng)
        table.to_csv(folder / "predictions.csv", index=False, encoding="utf-8")
        test = table[table["split"] == "test"]
        right = int((test["label"] == test["prediction"]).sum())
        accuracy = right / len(test) if len(test) else 0.0
        block = {
            "n": len(test),
            "accuracy": _estimate(accuracy) | {"k": right, "n": len(test)},
            "balanced_accuracy": _estimate(accuracy),
            "f1_macro": _estimate(accuracy),
            "auc": _estimate(0.94),
        }
        metrics = {
            "cohort": {
                "name": name, "synthetic": synthetic, "split": "random_0",
                "classes": list(classes), "n": counts,
            },
            "modalities": modalities, "seed": 0, "best_epoch": max(1, epochs - 4),
            "val": block, "test": block if len(test) else None,
        }  # fmt: skip
        write = {"encoding": "utf-8"}
        (folder / "metrics.json").write_text(json.dumps(metrics), **write)
        lines = [json.dumps(row) for row in _epochs(stages, epochs)]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", **write)
        config = {"preset": "demo", "seed": 0, "finetune": {"epochs": epochs, "lr": 1e-4}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config), **write)
        environment = {"gimp_fast": "0.1.0", "torch": "2.13.0", "git": {"revision": None}}
        (folder / "environment.json").write_text(json.dumps(environment), **write)

        centre = np.array([classes.index(label) for label in labels])[:, None]
        arrays = {
            stage: (rng.normal(size=(patients, dim)) + gap * (centre == np.arange(dim)))
            for stage, gap in (("pretrain", 3.0), ("finetune", 6.0))
            if stage in stages
        }
        np.savez(
            folder / "embeddings.npz", case_id=case_ids, split=splits, label=labels,
            **{stage: array.astype(np.float32) for stage, array in arrays.items()},
        )  # fmt: skip
        return folder

    return make
