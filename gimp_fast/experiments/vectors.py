"""Figure 2 in numbers: how far apart classes lie in the vectors of patients after pre-training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import silhouette_score
from sklearn.neighbors import KNeighborsClassifier

from gimp_fast.evaluation import comparison as statistics
from gimp_fast.experiments.collect import Finished, Vectors, pretrained_vectors
from gimp_fast.experiments.paper import split_groups
from gimp_fast.experiments.tables import NONE, Column, Grid, GridRow, group_heading

NEIGHBOURS = 5


def vectors_of(finished: Finished) -> Vectors:
    """What Fig. 2 draws of a run: CLS_pat, or CLS_img where the triplets were of slides alone."""
    config = finished.run.settings
    slide_alone = config.method == "gimp" and config.pretrain.triplets == "slide"
    return pretrained_vectors(finished, config.model.dim if slide_alone else None)


def separation(finished: Sequence[Finished], splits: Sequence[str]) -> dict[str, Any]:
    """Group of splits -> silhouettes of training and test patients, and a nearest-neighbour vote.

    The silhouette is the mean over patients of (b − a) / max(a, b), a the mean distance to their
    own class and b to the nearest other: 1 is far apart, 0 is mixed.
    """
    found = {}
    for group, names in split_groups(splits).items():
        runs = [vectors_of(one) for one in finished if one.run.split in names]
        if not runs:
            continue
        votes = [_votes(vectors) for vectors in runs]
        hits, total = sum(k for k, _ in votes), sum(n for _, n in votes)
        found[group] = {
            "runs": len(runs),
            "train": _silhouettes(runs, "train"),
            "test": _silhouettes(runs, "test"),
            "neighbours": {"k": hits, "n": total, "value": hits / total},
        }
    return found


def _silhouettes(runs: Sequence[Vectors], part: str) -> dict[str, Any]:
    values = []
    for run in runs:
        chosen = run.part == part
        labels = run.label[chosen]
        if 2 <= len(set(labels)) < len(labels):
            values.append(float(silhouette_score(run.vectors[chosen], labels)))
    if not values:
        return {"mean": None, "sd": None, "values": []}
    mean, sd = statistics.mean_sd(values)
    return {"mean": mean, "sd": sd, "values": values}


def _votes(vectors: Vectors) -> tuple[int, int]:
    """Test patients whose class their nearest training patients have, of how many."""
    training, test = vectors.part == "train", vectors.part == "test"
    neighbours = KNeighborsClassifier(min(NEIGHBOURS, int(training.sum())))
    neighbours.fit(vectors.vectors[training], vectors.label[training])
    called = neighbours.predict(vectors.vectors[test])
    return int(np.sum(called == vectors.label[test])), int(test.sum())


def separation_grid(rows: Sequence[dict[str, Any]], groups: Sequence[str]) -> Grid:
    """Rows of ``results.json``, whose ``separation`` is set, as a table."""
    titles = (
        "Silhouette, training", "Silhouette, test", f"{NEIGHBOURS} nearest neighbours, test",
    )  # fmt: skip
    columns = tuple(Column(group_heading(name), title) for name in groups for title in titles)
    lines = []
    for row in rows:
        cells = [c for name in groups for c in _cells(row, name)]
        lines.append(GridRow(row["section"], row["title"], tuple(cells), row["ours"]))
    return Grid(columns, tuple(lines))


def _cells(row: dict[str, Any], group: str) -> list[str]:
    found = (row.get("separation") or {}).get(group)
    if found is None:
        return [f"left out\n{row['skipped']}" if row["skipped"] else NONE, NONE, NONE]
    votes = found["neighbours"]
    return [
        _mean(found["train"]),
        _mean(found["test"]),
        f"{votes['value']:.3f}\n{votes['k']}/{votes['n']}",
    ]


def _mean(silhouette: dict[str, Any]) -> str:
    if silhouette["mean"] is None:
        return NONE
    text = f"{silhouette['mean']:.3f}".replace("-", "−")
    return text if silhouette["sd"] is None else f"{text} ± {silhouette['sd']:.3f}"
