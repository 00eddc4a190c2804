"""What a trained run leaves: metrics, predictions and representations of the chosen model."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from gimp_fast.data import Cohort
from gimp_fast.evaluation.rates import metrics_with_intervals
from gimp_fast.runs.checkpoint import load_model
from gimp_fast.runs.folder import RunFolder
from gimp_fast.training.stage import StageContext
from gimp_fast.training.stages import stages_of


def evaluate_run(
    context: StageContext,
    folder: RunFolder,
    cohort: Cohort,
    split_name: str,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Metrics, predictions and representations of the chosen model; rank 0 writes them."""
    config, names = context.config, [kind.name for kind in stages_of(context.config)]
    cases = [c for part in ("train", "val", "test") for c in context.split[part]]
    parts = np.array([p for p in ("train", "val", "test") for _ in context.split[p]])
    labels = context.reader.labels(cases).numpy()
    arrays = {
        "case_id": np.array(cases),
        "split": parts,
        "label": np.array([cohort.classes[i] for i in labels]),
    }
    for name in ("pretrain", "finetune"):
        if name in names:
            state = load_model(folder.checkpoint(name), context.model)
            outputs = context.predict(cases)
            arrays[name] = outputs.vectors
    metrics: dict[str, Any] = {
        "cohort": {
            "name": cohort.name,
            "synthetic": cohort.synthetic,
            "split": split_name,
            "classes": list(cohort.classes),
            "n": {part: len(ids) for part, ids in context.split.items()},
        },
        "method": config.method,
        "modalities": config.modalities,
        "seed": config.seed,
        "best_epoch": state["epoch"],
    }
    rows, probabilities = [], outputs.probabilities
    for part in ("val", "test"):
        chosen = parts == part
        metrics[part] = metrics_with_intervals(
            probabilities[chosen], labels[chosen], resamples=config.bootstrap, seed=config.seed
        )
        for i in np.flatnonzero(chosen):
            called = cohort.classes[probabilities[i].argmax()]
            rows.append([cases[i], part, cohort.classes[labels[i]], called])
            rows[-1] += [f"{p:.6g}" for p in probabilities[i]]
    if not context.ranks.writes:
        return metrics
    folder.write_arrays("embeddings.npz", arrays)
    header = ["case_id", "split", "label", "prediction", *(f"prob_{c}" for c in cohort.classes)]
    folder.write_table("predictions.csv", header, rows)
    folder.write_text("metrics.json", json.dumps(metrics, indent=2) + "\n")
    log(f"test: {metrics_text(metrics['test'])}")
    return metrics


def metrics_text(part: dict[str, Any]) -> str:
    """One line: accuracy with n/N, AUC, both with their interval."""
    accuracy, auc = part["accuracy"], part["auc"]
    text = (
        f"accuracy {accuracy['value']:.3f} ({accuracy['k']}/{accuracy['n']}, "
        f"95 % CI {accuracy['low']:.3f} to {accuracy['high']:.3f})"
    )
    if auc is not None:
        text += f", AUC {auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})"
    return text
