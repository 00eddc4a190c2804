"""Predictions of a model on patients, and the metrics of predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from gimp_fast.models import PatientModel
from gimp_fast.training.distributed import ALONE, Ranks
from gimp_fast.training.loader import plan_epoch
from gimp_fast.training.sampling import PatientReader


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Mixed precision for forward passes; weights stay fp32."""
    if precision == "fp32":
        return nullcontext()
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(device.type, dtype=dtype)


@torch.no_grad()
def outputs_of(
    model: PatientModel, inputs: Mapping[str, Any], device: torch.device, precision: str
) -> tuple[np.ndarray, np.ndarray]:
    """Class probabilities (B, classes) and representations (B, ·) of one batch, both float32."""
    with autocast(device, precision):
        representation = model.represent(**inputs)
        logits = model.classify(representation)
    probabilities = logits.float().softmax(-1).cpu().numpy()
    return probabilities, representation.float().cpu().numpy()


@torch.no_grad()
def predict(
    model: PatientModel,
    reader: PatientReader,
    case_ids: Sequence[str],
    *,
    batch_size: int,
    device: torch.device,
    precision: str = "fp32",
    ranks: Ranks = ALONE,
) -> tuple[np.ndarray, np.ndarray]:
    """Class probabilities (patients, classes) and representations (patients, ·), both float32.

    The representation is what the model classifies, CLS_pat in GiMP.

    Ranks take turns at the batches; the result is the same on each.
    """
    model.eval()
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    plans = plan_epoch(case_ids, batch_size, [], shuffle=False)
    for plan in plans[ranks.rank :: ranks.size]:
        batch = reader.batch(plan.case_ids).to(device)
        found[plan.step] = outputs_of(model, batch.inputs(), device, precision)
    for others in ranks.gather(found):
        found |= others
    rows = zip(*(found[plan.step] for plan in plans), strict=True)
    probabilities, representations = (np.concatenate(parts) for parts in rows)
    return probabilities, representations


def cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean −log p of the true class."""
    picked = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(picked, 1e-12, None)).mean())


def rates(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """Accuracy, balanced accuracy and macro F1 over the classes present, and macro one-vs-rest AUC.

    Args:
        probabilities: (patients, classes).
        labels: (patients,) int.

    Returns:
        The AUC is None where a class has no patient.
    """
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(1)
    confusion = np.bincount(labels * classes + predicted, minlength=classes**2)
    confusion = confusion.reshape(classes, classes)  # (true, predicted)
    hits, true, called = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    present = true > 0
    with np.errstate(invalid="ignore"):
        f1 = np.where(true + called > 0, 2 * hits / (true + called), 0.0)
    auc = None
    if present.all():
        scores = probabilities[:, 1] if classes == 2 else probabilities
        scores = scores.astype(np.float64)
        if classes > 2:
            scores = scores / scores.sum(1, keepdims=True)
        auc = float(roc_auc_score(labels, scores, multi_class="ovr", average="macro"))
    return {
        "accuracy": float(hits.sum() / len(labels)),
        "balanced_accuracy": float((hits[present] / true[present]).mean()),
        "f1_macro": float(f1[present].mean()),
        "auc": auc,
    }


def metrics_with_intervals(
    probabilities: np.ndarray, labels: np.ndarray, *, resamples: int, seed: int
) -> dict[str, Any]:
    """Rates with bootstrap 95 % confidence intervals over patients.

    Returns:
        ``{"n": …, "accuracy": {"value", "low", "high", "k", "n"}, "balanced_accuracy": {"value",
        "low", "high"}, "f1_macro": …, "auc": … or None}``. Resamples in which a class is missing
        have no AUC and do not count for its interval.
    """
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {}
    for _ in range(resamples):
        rows = rng.integers(len(labels), size=len(labels))
        for name, value in rates(probabilities[rows], labels[rows]).items():
            if value is not None:
                drawn.setdefault(name, []).append(value)
    result: dict[str, Any] = {"n": len(labels)}
    for name, value in rates(probabilities, labels).items():
        if value is None:
            result[name] = None
            continue
        low, high = np.percentile(drawn[name], [2.5, 97.5])
        result[name] = {"value": value, "low": float(low), "high": float(high)}
    correct = int((probabilities.argmax(1) == labels).sum())
    result["accuracy"] |= {"k": correct, "n": len(labels)}
    return result
