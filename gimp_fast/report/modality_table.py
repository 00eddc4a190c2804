"""The page's table of what each modality contributes, and the weight that validation chose."""

from __future__ import annotations

from typing import Any

from gimp_fast.report.panels import with_interval
from gimp_fast.runs.records import Run
from gimp_fast.runs.score_texts import (
    ALONE,
    NO_AUC,
    READS,
    difference_text,
    fusion_text,
    modality_note,
)
from gimp_fast.runs.scores import Estimate, SplitMetrics


def modality_section(run: Run) -> dict[str, Any]:
    """What the page's template needs; no rows if the run read one modality, or does not say."""
    fusion, scores = run.metrics.fusion, run.metrics.by_modality
    shown = {"fusion": fusion and fusion_text(fusion), "modality_rows": [], "modality_note": ""}
    if scores is None:
        return shown
    shown["modality_note"] = modality_note(scores)
    if scores.both is None:
        return shown
    rows = [(READS["both"], *_cells(scores.both), "–", "–")]
    for name, title in ALONE.items():
        alone = getattr(scores, name)
        if alone is None:
            reason = scores.refused.get(name, "the model needs both")
            rows.append((title, f"not possible: {reason}", "–", "–", "–"))
            continue
        differences = (alone.accuracy_difference, alone.auc_difference)
        texts = ["–" if each is None else difference_text(each) for each in differences]
        rows.append((title, *_cells(alone), *texts))
    return shown | {"modality_rows": rows}


def _cells(metrics: SplitMetrics) -> tuple[str, str]:
    """Accuracy with its counts, and AUC."""
    area = NO_AUC if metrics.auc is None else with_interval(metrics.auc)
    return _share(metrics.accuracy), area


def _share(estimate: Estimate) -> str:
    return f"{estimate.k}/{estimate.n} = {with_interval(estimate)}"
