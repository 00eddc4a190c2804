"""The page's table of what each modality contributes, and the weight that validation chose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gimp_fast.report.panels import with_interval
from gimp_fast.runs.records import Run
from gimp_fast.runs.score_texts import (
    NO_AUC,
    compared_scores,
    difference_text,
    fusion_text,
    modality_note,
    reason_of,
    shown_titles,
    whole_name,
)
from gimp_fast.runs.scores import ByModality, SplitMetrics


def modality_section(run: Run) -> dict[str, Any]:
    """What the page's template needs; no rows if the run compared nothing, or does not say."""
    fusion, scores = run.metrics.fusion, run.metrics.by_modality
    shown = {
        "fusion": fusion and fusion_text(fusion),
        "modality_columns": [],
        "modality_rows": [],
        "modality_note": "" if scores is None else modality_note(scores),
    }
    if scores is None or scores.both is None:
        return shown
    titles = compared_scores(scores.both)
    capitals = [title[0].upper() + title[1:] for title in titles.values()]
    against = [f"{title} against {whole_name(scores)}" for title in capitals]
    rows = [
        (title, _row(scores, name, tuple(titles))) for name, title in shown_titles(scores).items()
    ]
    return shown | {"modality_columns": [*capitals, *against], "modality_rows": rows}


def _row(scores: ByModality, name: str, compared: Sequence[str]) -> list[str]:
    """The cells of one part: its scores, then their differences from all that the model reads."""
    part = getattr(scores, name)
    if part is None:
        return [f"not possible: {reason_of(scores, name)}"] + ["–"] * (2 * len(compared) - 1)
    cells = [_score(part, score) for score in compared]
    if name == "both":
        return cells + ["–"] * len(compared)
    differences = [part.difference(score) for score in compared]
    return cells + ["–" if each is None else difference_text(each) for each in differences]


def _score(metrics: SplitMetrics, name: str) -> str:
    """A score with its interval, and with its counts if it is a share."""
    estimate = getattr(metrics, name)
    if estimate is None:
        return NO_AUC if name == "auc" else "–"
    counts = f"{estimate.k}/{estimate.n} = " if name == "accuracy" else ""
    return f"{counts}{with_interval(estimate)}"
