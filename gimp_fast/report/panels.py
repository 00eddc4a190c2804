"""Decides which figures a run can have, and words their captions or why one is left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

from gimp_fast.evaluation.rates import roc
from gimp_fast.pages import style
from gimp_fast.report import figures
from gimp_fast.runs.records import Run
from gimp_fast.runs.scores import Estimate

MIN_PATIENTS_FOR_TSNE = 10
TSNE_SEED = 0

_SCORES = ("accuracy", "auc", "c_index", "correlation")  # a target has some of them
STAGES = {
    "genes": ("Genes", ("loss", *_SCORES)),
    "pretrain": ("Pre-training", ("reconstruction", "triplet")),
    "slides": ("Slides alone", ("loss", *_SCORES)),
    "finetune": ("Fine-tuning", ("loss", *_SCORES)),
}
QUANTITIES = {
    "loss": ("Loss", "Cross-entropy (nats per patient)"),
    "accuracy": ("Accuracy", "Accuracy (share of patients)"),
    "auc": ("AUC", "AUC"),
    "c_index": ("C-index", "C-index"),
    "correlation": ("Correlation", "Correlation"),
    "reconstruction": ("Masked reconstruction", "Masked L1 (embedding units)"),
    "triplet": ("Triplet", "Triplet loss (squared distance)"),
    "probe_accuracy": ("Linear classifier of CLS_img", "Accuracy (share of patients)"),
    "probe_c_index": ("Linear model of CLS_img", "C-index"),
    "probe_correlation": ("Linear model of CLS_img", "Correlation"),
}
# What a stage trains on, if that is one modality.
_READ_BY = {"genes": "rna", "pretrain": "slide"}
_ASKED_FOR = ("slides",)  # stages that only an option adds
SHARES = ("accuracy", "auc", "c_index", "probe_accuracy", "probe_c_index")
_PROBED = ("probe_accuracy", "probe_c_index", "probe_correlation")


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
    """Stage title -> its curves, without any for a stage that GiMP has and this run has not.

    Other methods may lack stages, and so may a model that does not read what a stage trains on.
    """
    sections: dict[str, list[Panel]] = {}
    for stage, (title, quantities) in STAGES.items():
        if not run.epochs.get(stage):
            usual = run.metrics.method == "gimp" and stage not in _ASKED_FOR
            if usual and _READ_BY.get(stage) in (None, *_read(run)):
                sections[title] = []
            continue
        found = _curves(run, stage, quantities) or _curves(run, stage, ("loss",))
        found += _curves(run, stage, _PROBED)
        reason = "Left out: metrics.jsonl has no finite value of its quantities."
        sections[title] = found or [Panel(stage, title, reason)]
    return sections


def _curves(run: Run, stage: str, quantities: Sequence[str]) -> list[Panel]:
    """Those of the quantities that the stage has; of several targets, each that has one."""
    keys = {quantity: quantity for quantity in quantities}
    for target in run.metrics.targets or ():
        for quantity in quantities:
            probe = "probe_" if quantity in _PROBED else ""
            keys[f"{probe}{target}:{quantity.removeprefix(probe)}"] = quantity
    return list(filter(None, (curve_panel(run, stage, *pair) for pair in keys.items())))


def _read(run: Run) -> tuple[str, ...]:
    modalities = run.metrics.modalities
    return ("slide", "rna") if modalities == "both" else (modalities,)


def curve_panel(run: Run, stage: str, key: str, quantity: str) -> Panel | None:
    """One quantity of training and validation, by its key; None without a finite value."""
    epochs, series = run.epochs[stage], {}
    for split in ("train", "val"):
        points = {epoch.epoch: getattr(epoch, split).get(key) for epoch in epochs}
        finite = {n: v for n, v in points.items() if v is not None and math.isfinite(v)}
        if finite:
            series[split] = finite
    if not series:
        return None
    name, label = QUANTITIES[quantity]
    metrics = run.metrics
    is_class = not metrics.targets and (metrics.target is None or metrics.target.kind == "class")
    if quantity == "loss" and (stage == "pretrain" or not is_class):
        label = "Loss"
    if key != quantity:  # of one of several targets
        name = f"{key.removeprefix('probe_').partition(':')[0]}: {name}"
    best = metrics.best_epoch if stage == "finetune" else None
    last = {split: list(points.items())[-1] for split, points in series.items()}
    ends = "; ".join(f"{split} ends at {v:.3g} in epoch {n}" for split, (n, v) in last.items())
    drawing = figures.curve(series, label, best, is_share=quantity in SHARES)
    alt = f"{STAGES[stage][0]}: {label} by epoch; {ends}"
    if best is not None:
        alt += f"; best epoch {best}"
    return Panel(f"{stage}_{key.replace(':', '_')}", name, alt=alt, figure=drawing)


def confusion_panel(run: Run) -> Panel:
    """Test cases by true and predicted class."""
    name, title = "confusion", "Confusion matrix"
    test, classes = run.predictions.of("test"), run.metrics.cohort.classes
    if not len(test):
        return Panel(name, title, "Left out: predictions.csv has no test case.")
    size = len(classes)
    cells = np.bincount(test.label * size + test.predicted, minlength=size * size)
    counts = cells.reshape(size, size)
    right, total, largest = np.trace(counts), counts.sum(), counts.sum(axis=1).max()
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
        reason = "a ROC curve needs test cases of at least two classes, and predictions.csv has"
        return Panel(name, title, f"Left out: {reason} {present}.")
    is_binary = len(classes) == 2
    colours = style.colours(len(classes))
    curves, areas, absent = [], [], []
    for place, positive in list(enumerate(classes))[is_binary:]:
        found = roc(test.probabilities[:, place], test.label == place)
        if found is None:
            absent.append(positive)
            continue
        *points, area = found
        text = f"{positive}: AUC {area:.3f}"
        if is_binary:
            stored = run.metrics.test.auc if run.metrics.test else None
            text = f"AUC {with_interval(stored) if stored else format(area, '.3f')}"
        curves.append((text, colours[place], points))
        areas.append(f"{positive} {area:.3f}")
    caption = f"{len(test)} test cases; each class against the rest."
    if is_binary:
        caption = f"{len(test)} test cases; “{classes[1]}” is the positive class."
    if absent:
        caption += f" Without a test case, so without a curve: {', '.join(absent)}."
    alt = f"ROC curves of {len(test)} test cases; AUC: {', '.join(areas)}"
    return Panel(name, title, caption, alt, figures.roc(curves))


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
    n, reason = len(vectors), ""
    if n < MIN_PATIENTS_FOR_TSNE:
        reason = f"t-SNE of {n} patients shows nothing; it needs at least {MIN_PATIENTS_FOR_TSNE}."
    elif not np.isfinite(vectors).all():
        reason = "some embeddings are not finite."
    elif not vectors.std(axis=0).any() or vectors.shape[1] < 2:
        reason = "all patients have the same embedding."
    if reason:
        return Panel(name, title, f"Left out: {reason}")
    perplexity = min(30.0, (n - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=TSNE_SEED).fit_transform(vectors)
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
