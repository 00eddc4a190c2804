"""Figure 2 in numbers: how far apart classes lie in the vectors of patients after pre-training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import silhouette_score
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits

from gimp_fast.errors import GimpError
from gimp_fast.evaluation.intervals import Spread, spread
from gimp_fast.evaluation.rates import Share
from gimp_fast.experiments.baselines import standardised_regression
from gimp_fast.experiments.plan import PlannedRun
from gimp_fast.runs.patient_arrays import AS_DRAWN
from gimp_fast.runs.records import open_run

NEIGHBOURS = 5
PROBE_C = 0.05  # scikit-learn's C of the linear probe: not tuned, the same for all


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
class Probe:
    """Test patients that a linear classifier of CLS_img gets right, over some runs.

    ``drawn`` is of the model with its first weights, ``pretrained`` of the model after
    pre-training.
    """

    runs: int
    drawn: Share
    pretrained: Share


def linear_probe(runs: Sequence[tuple[PlannedRun, Path]]) -> Probe | None:
    """What pre-training has taught the slide encoder; None if no run was pre-trained.

    Logistic regression of CLS_img, standardised, fitted on the training patients of each run. No
    part of the model is trained for it.
    """
    hits: dict[str, list[np.ndarray]] = {AS_DRAWN: [], "pretrain": []}
    for run, folder in runs:
        embeddings, width = open_run(folder).embeddings, run.settings.model.dim
        if not hits.keys() <= embeddings.stages.keys():
            continue  # it has no such stage, or was trained by an earlier version
        training, test = embeddings.split == "train", embeddings.split == "test"
        for stage, found in hits.items():
            vectors = embeddings.stages[stage].astype(np.float64)[:, :width]
            probe = standardised_regression(PROBE_C)
            with threadpool_limits(1):
                probe.fit(vectors[training], embeddings.label[training])
            found.append(probe.predict(vectors[test]) == embeddings.label[test])
    if not hits["pretrain"]:
        return None
    shares = (Share.of(np.concatenate(found)) for found in hits.values())
    return Probe(len(hits["pretrain"]), *shares)


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
