"""The page's section of the test set: scores and figures, for each target that was learnt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gimp_fast.report import panels
from gimp_fast.report.calibration_panel import calibration_panel
from gimp_fast.report.decision_panel import class_decision_panels
from gimp_fast.report.outcome_panels import OUTCOME_TITLES, outcome_panels
from gimp_fast.report.panels import Panel
from gimp_fast.report.precision_panel import precision_panel
from gimp_fast.runs.records import Run
from gimp_fast.runs.score_texts import NO_AUC
from gimp_fast.runs.scores import Estimate
from gimp_fast.runs.target_views import views_of

METRIC_TITLES = {
    "accuracy": "Accuracy",
    "auc": "AUC",
    "balanced_accuracy": "Balanced accuracy",
    "f1_macro": "Macro F1",
}


def is_outcome(run: Run) -> bool:
    """Whether a run's one target is no class."""
    return run.metrics.target is not None and run.metrics.target.kind != "class"


def target_sections(run: Run) -> list[dict[str, Any]]:
    """What the page's templates need of each target; of one alone, the title is empty."""
    return [_section(name, view) for name, view in views_of(run).items()]


def _section(name: str, run: Run) -> dict[str, Any]:
    outcome, metrics = is_outcome(run), run.metrics
    titles = OUTCOME_TITLES if outcome else METRIC_TITLES
    tiles = [
        {"title": title, "estimate": estimate, "n": metrics.test.n}
        for key, title in titles.items()
        if (estimate := getattr(metrics.test, key, None)) is not None
    ]
    parts = (metrics.val, metrics.test)
    rows = [
        (title, *(_cell(getattr(part, key, None)) for part in parts))
        for key, title in titles.items()
        if not outcome or any(getattr(part, key, None) for part in parts)
    ]
    drawn = outcome_panels(run) if outcome else _class_panels(run)
    return {
        "title": name,
        "kind": metrics.target.kind if metrics.target else "class",
        "tiles": tiles,
        "without": [NO_AUC] if tiles and not outcome and metrics.test.auc is None else [],
        "rows": rows,
        "counts": {part: getattr(metrics, part).n for part in ("val", "test")
                   if getattr(metrics, part) is not None},
        "by_class": metrics.cohort.by_class,
        "classes": metrics.cohort.classes,
        "panels": [_of_target(panel, name) for panel in drawn],
    }  # fmt: skip


def _of_target(panel: Panel, name: str) -> Panel:
    """With the target in the name of its file."""
    return replace(panel, name=f"{name}_{panel.name}") if name else panel


def _class_panels(run: Run) -> list[Panel]:
    drawn = [panels.confusion_panel(run), panels.roc_panel(run), precision_panel(run)]
    return [*drawn, calibration_panel(run), *class_decision_panels(run)]


def _cell(estimate: Estimate | None) -> str:
    return "–" if estimate is None else panels.with_interval(estimate)
