"""Figure 2 in numbers: how far apart classes lie in the vectors of patients after pre-training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import silhouette_score
from sklearn.neighbors import KNeighborsClassifier

from gimp_fast.errors import GimpError
from gimp_fast.evaluation.intervals import Spread, spread
from gimp_fast.evaluation.linear_probe import probe
from gimp_fast.evaluation.rates import Share
from gimp_fast.experiments.plan import PlannedRun
from gimp_fast.runs.patient_arrays import AS_DRAWN
from gimp_fast.runs.records import Embeddings, open_run

NEIGHBOURS = 5


@dataclass(frozen=True)
class Vectors:
    """Patients after pre-training: part and label (n,) unicode, vectors (n, d)."""

    part: np.ndarray
    label: np.ndarray
    vectors: np.ndarray


@dataclass(frozen=True)
class Separation:
    """How far apart classes lie, over some runs.

    ``train`` and ``test`` are silhouettes: the mean over patients of (b − a) / max(a, b), a the
    mean distance to their own class and b to the nearest other: 1 is far apart, 0 is mixed.
    ``neighbours`` counts test patients whose nearest training patients have their class.
    """

    runs: int
    train: Spread
    test: Spread
    neighbours: Share


@dataclass(frozen=True)
class Learned:
    """Test patients that a linear classifier of CLS_img gets right, over some runs.

    ``drawn`` is of the model with its first weights, ``pretrained`` of the model after
    pre-training.
    """

    drawn: Share
    pretrained: Share


@dataclass(frozen=True)
class Probe:
    """What pre-training has taught the slide encoder, as linear classifiers of CLS_img see it.

    ``train`` are fitted on the training patients, as fine-tuning is. Pre-training with triplets has
    seen the classes of these, and may have learned them by heart. ``val`` are fitted on the
    validation patients, whose classes it has not seen: what the vectors are worth in themselves.
    """

    runs: int
    train: Learned
    val: Learned


def linear_probe(runs: Sequence[tuple[PlannedRun, Path]]) -> Probe | None:
    """What pre-training has taught the slide encoder; None if no run was pre-trained.

    Test patients are classified by logistic regression of CLS_img. No part of the model is trained
    for it.
    """
    pretrained = []
    for run, folder in runs:
        embeddings = open_run(folder).embeddings
        if {AS_DRAWN, "pretrain"} <= embeddings.stages.keys():  # also: not of an earlier version
            pretrained.append((embeddings, run.settings.model.dim))
    if not pretrained:
        return None

    def learned(part: str) -> Learned:
        hits = {
            stage: [_probe_hits(found, stage, width, part) for found, width in pretrained]
            for stage in (AS_DRAWN, "pretrain")
        }
        return Learned(*(Share.of(np.concatenate(of_stage)) for of_stage in hits.values()))

    return Probe(len(pretrained), learned("train"), learned("val"))


def _probe_hits(embeddings: Embeddings, stage: str, width: int, part: str) -> np.ndarray:
    """(test patients,) bool: whether a classifier that is fitted on a part gets them right."""
    fitted, test = embeddings.split == part, embeddings.split == "test"
    vectors = embeddings.stages[stage][:, :width]
    chosen = probe(vectors, embeddings.label, fitted, test).argmax(1)
    return np.unique(embeddings.label)[chosen] == embeddings.label[test]


def pretrained_vectors(run: PlannedRun, folder: Path) -> Vectors:
    """What Figure 2 draws of a run: CLS_pat, or CLS_img if the triplets were of slides alone.

    Raises:
        GimpError: the file is damaged or has no vectors of pre-training.
    """
    embeddings = open_run(folder).embeddings
    if "pretrain" not in embeddings.stages:
        found = ", ".join(embeddings.stages) or "no stage"
        raise GimpError(f"{folder}: found embeddings of {found}; expected those of pretrain")
    settings = run.settings
    slide_alone = settings.method == "gimp" and settings.pretrain.triplets == "slide"
    width = settings.model.dim if slide_alone else None  # CLS_img comes first in CLS_pat
    vectors = embeddings.stages["pretrain"].astype(np.float64)[:, :width]
    return Vectors(embeddings.split, embeddings.label, vectors)


def separation(runs: Sequence[Vectors]) -> Separation:
    """Silhouettes and nearest-neighbour votes of one run or more."""
    votes = Share.of(np.concatenate([_votes(run) for run in runs]))
    return Separation(len(runs), _silhouettes(runs, "train"), _silhouettes(runs, "test"), votes)


def _silhouettes(runs: Sequence[Vectors], part: str) -> Spread:
    values = []
    for run in runs:
        chosen = run.part == part
        labels = run.label[chosen]
        if 2 <= len(set(labels)) < len(labels):
            values.append(silhouette_score(run.vectors[chosen], labels))
    return spread(values)


def _votes(run: Vectors) -> np.ndarray:
    """(test patients,) bool: whether their nearest training patients have their class."""
    training, test = run.part == "train", run.part == "test"
    neighbours = KNeighborsClassifier(min(NEIGHBOURS, int(training.sum())))
    neighbours.fit(run.vectors[training], run.label[training])
    return neighbours.predict(run.vectors[test]) == run.label[test]
