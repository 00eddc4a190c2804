"""Decides which figures a run can have, and words their captions or why one is left out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from sklearn.manifold import TSNE
from sklearn.metrics import confusion_matrix, roc_auc_score, roc_curve

from gimp_fast.pages import style
from gimp_fast.report import figures
from gimp_fast.runs.records import Epoch, Estimate, Run

MIN_PATIENTS_FOR_TSNE = 10
TSNE_SEED = 0

STAGES = {
    "genes": ("Genes", ("loss", "accuracy", "auc")),
    "pretrain": ("Pre-training", ("reconstruction", "triplet")),
    "finetune": ("Fine-tuning", ("loss", "accuracy", "auc")),
}
QUANTITIES = {
    "loss": ("Loss", "Cross-entropy (nats per patient)"),
    "accuracy": ("Accuracy", "Accuracy (share of patients)"),
    "auc": ("AUC", "AUC"),
    "reconstruction": ("Masked reconstruction", "Masked L1 (embedding units)"),
    "triplet": ("Triplet", "Triplet loss (squared distance)"),
}
SHARES = ("accuracy", "auc")


@dataclass(frozen=True)
class Panel:
    """One figure of the report; with ``figure=None``, ``caption`` says why it is absent.

    Attributes:
        name: file stem below ``figures/``.
        alt: what the figure shows, for readers who cannot see it.
    """

    name: str
    title: str
    caption: str = ""
    alt: str = ""
    figure: Figure | None = None


def with_interval(estimate: Estimate) -> str:
    """``0.93 (95 % CI 0.90–0.96)``."""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} (95 % CI {estimate.low:.3f}–{estimate.high:.3f})"


def curve_panels(run: Run) -> dict[str, list[Panel]]:
    """Stage title -> its curves; methods other than GiMP may lack stages."""
    sections = {}
    for stage, (title, quantities) in STAGES.items():
        epochs = run.epochs.get(stage)
        if not epochs and run.metrics.method != "gimp":
            continue
        if not epochs:
            reason = "This run has no such stage: metrics.jsonl has none of its epochs."
            sections[title] = [Panel(stage, "Left out", reason)]
            continue
        best = run.metrics.best_epoch if stage == "finetune" else None
        drawn = [_curve(stage, title, quantity, epochs, best) for quantity in quantities]
        if all(panel is None for panel in drawn):
            drawn = [_curve(stage, title, "loss", epochs, best)]
        sections[title] = [panel for panel in drawn if panel] or [
            Panel(stage, "Left out", "metrics.jsonl has no finite value of its quantities.")
        ]
    return sections


def _curve(
    stage: str, title: str, quantity: str, epochs: list[Epoch], best: int | None
) -> Panel | None:
    series: dict[str, list[float]] = {}
    numbers: dict[str, list[int]] = {}
    for split in ("train", "val"):
        points = [(epoch.epoch, getattr(epoch, split).get(quantity)) for epoch in epochs]
        points = [(n, value) for n, value in points if value is not None and math.isfinite(value)]
        if points:
            numbers[split], series[split] = map(list, zip(*points, strict=True))
    if not series:
        return None
    name, label = QUANTITIES[quantity]
    if stage == "pretrain" and quantity == "loss":
        label = "Loss"
    ends = "; ".join(
        f"{split} ends at {values[-1]:.3g} in epoch {numbers[split][-1]}"
        for split, values in series.items()
    )
    drawing = figures.curve(numbers, series, label, best, is_share=quantity in SHARES)
    alt = f"{title}: {label} by epoch; {ends}"
    if best is not None:
        alt += f"; best epoch {best}"
    return Panel(f"{stage}_{quantity}", name, alt=alt, figure=drawing)


def confusion_panel(run: Run) -> Panel:
    """Test cases by true and predicted class."""
    name, title = "confusion", "Confusion matrix"
    test, classes = run.predictions.of("test"), run.metrics.cohort.classes
    if not len(test):
        return Panel(name, title, "Left out: predictions.csv has no test case.")
    counts = confusion_matrix(test.label, test.predicted, labels=range(len(classes)))
    right, total = int(np.trace(counts)), int(counts.sum())
    largest = counts.sum(axis=1).max()
    alt = f"{title} of {total} test cases, {right} on the diagonal. " + "; ".join(
        f"{true}: " + ", ".join(f"{counts[i, j]} as {guess}" for j, guess in enumerate(classes))
        for i, true in enumerate(classes)
    )
    caption = (
        f"Patients, and their share of the row. {right} of {total} are right; always answering "
        f"with the largest class would get {largest} right."
    )
    return Panel(name, title, caption, alt, figures.confusion(counts, classes))


def roc_panel(run: Run) -> Panel:
    """The ROC curve of the second of two classes, or of each of several against the rest."""
    name, title = "roc", "ROC"
    test, classes = run.predictions.of("test"), run.metrics.cohort.classes
    present = len(np.unique(test.label))
    if present < 2:
        return Panel(
            name, title, "Left out: a ROC curve needs test cases of at least two classes, "
            f"and predictions.csv has {present}.",
        )  # fmt: skip
    colour_of_class = dict(zip(classes, style.colours(len(classes)), strict=True))
    positives = classes[1:] if len(classes) == 2 else classes
    curves, colours, areas, absent = {}, {}, [], []
    for positive in positives:
        place = classes.index(positive)
        truth = test.label == place
        if not truth.any() or truth.all():
            absent.append(positive)
            continue
        scores = test.probabilities[:, place]
        false_positive, true_positive, _ = roc_curve(truth, scores)
        area = roc_auc_score(truth, scores)
        key = f"{positive}: AUC {area:.3f}"
        if len(classes) == 2:
            key = _binary_legend(run, area)
        curves[key], colours[key] = (false_positive, true_positive), colour_of_class[positive]
        areas.append(f"{positive} {area:.3f}")
    if len(classes) == 2:
        caption = f"{len(test)} test cases; “{positives[0]}” is the positive class."
    else:
        caption = f"{len(test)} test cases; each class against the rest."
    if absent:
        caption += f" Without a test case, so without a curve: {', '.join(absent)}."
    alt = f"ROC curves of {len(test)} test cases; AUC: {', '.join(areas)}"
    return Panel(name, title, caption, alt, figures.roc(curves, colours))


def _binary_legend(run: Run, area: float) -> str:
    stored = run.metrics.test.auc if run.metrics.test else None
    return f"AUC {with_interval(stored) if stored else format(area, '.3f')}"


def tsne_panels(run: Run) -> list[Panel]:
    """t-SNE of what the model classifies (CLS_pat in GiMP) after each stage that stored it."""
    titles = {"pretrain": "After pre-training", "finetune": "After fine-tuning"}
    if run.metrics.method != "gimp" and "pretrain" not in run.embeddings.stages:
        del titles["pretrain"]
    return [_tsne(run, stage, title) for stage, title in titles.items()]


def _tsne(run: Run, stage: str, title: str) -> Panel:
    name, embeddings = f"tsne_{stage}", run.embeddings
    if stage not in embeddings.stages:
        return Panel(name, title, "Left out: embeddings.npz has no embeddings of this stage.")
    vectors = embeddings.stages[stage].astype(np.float64)
    n = len(vectors)
    if n < MIN_PATIENTS_FOR_TSNE:
        return Panel(
            name, title, f"Left out: t-SNE of {n} patients shows nothing; "
            f"it needs at least {MIN_PATIENTS_FOR_TSNE}.",
        )  # fmt: skip
    if not np.isfinite(vectors).all():
        return Panel(name, title, "Left out: some embeddings are not finite.")
    if not vectors.std(axis=0).any() or vectors.shape[1] < 2:
        return Panel(name, title, "Left out: all patients have the same embedding.")
    perplexity = min(30.0, (n - 1) / 3)
    points = TSNE(
        perplexity=perplexity, init="pca", learning_rate="auto", random_state=TSNE_SEED
    ).fit_transform(vectors)
    # Labels that are no class of the cohort have colours of their own, after the classes.
    known = run.metrics.cohort.classes
    classes = [*known, *sorted(set(embeddings.label) - set(known))]
    drawing = figures.scatter(points, embeddings.label, embeddings.split, classes)
    caption = (
        f"{n} patients, perplexity {perplexity:.3g}, seed {TSNE_SEED}. Only neighbourhoods carry "
        "meaning: distances between groups, and their sizes, do not."
    )
    alt = f"t-SNE of patients {title.lower()}: {n} patients, coloured by {len(classes)} classes"
    return Panel(name, title, caption, alt, drawing)
