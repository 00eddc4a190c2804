"""``table.csv``: every number of a table, a line for each row and group of splits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd

from gimp_fast.experiments.classes.results import Results
from gimp_fast.files.safe_text import guarded


def _with_ends(name: str, path: str) -> dict[str, str]:
    return {name: f"{path}.value", f"{name}_low": f"{path}.low", f"{name}_high": f"{path}.high"}


# Column -> where it comes from.
CSV_COLUMNS = {
    "experiment": "experiment.name", "section": "row.section", "row": "row.key",
    "title": "row.title", "method": "row.method", "modalities": "row.modalities",
    "overrides": "overrides", "splits": "group.name", "runs": "scores.runs",
    "runs_wanted": "scores.of", "skipped": "skipped", "patients": "scores.test.patients",
    "predictions": "scores.test.predictions", "correct": "scores.test.accuracy.k",
    **_with_ends("accuracy", "scores.test.accuracy"),
    "accuracy_mean": "scores.test.accuracy_of_runs.mean",
    "accuracy_sd": "scores.test.accuracy_of_runs.sd",
    **_with_ends("auc", "scores.test.auc"),
    **_with_ends("balanced_accuracy", "scores.test.balanced_accuracy"),
    **_with_ends("f1_macro", "scores.test.f1_macro"),
    **_with_ends("cross_entropy", "scores.test.cross_entropy"),
    "calibration_error": "scores.test.calibration_error", "brier": "scores.test.brier",
    "val_accuracy": "scores.val.accuracy.value", "val_correct": "scores.val.accuracy.k",
    "val_predictions": "scores.val.accuracy.n",
    **_with_ends("difference", "scores.versus.accuracy"),
    "p": "scores.versus.accuracy.p", "p_holm": "scores.versus.accuracy.p_holm",
    "mcnemar_only_this": "scores.versus.accuracy.mcnemar.only_this",
    "mcnemar_only_reference": "scores.versus.accuracy.mcnemar.only_reference",
    "mcnemar_p": "scores.versus.accuracy.mcnemar.p",
    "mcnemar_p_holm": "scores.versus.accuracy.mcnemar.p_holm",
    **_with_ends("auc_difference", "scores.versus.auc"),
    "auc_p": "scores.versus.auc.p", "auc_p_holm": "scores.versus.auc.p_holm",
    **_with_ends("cross_entropy_difference", "scores.versus.cross_entropy"),
    "cross_entropy_p": "scores.versus.cross_entropy.p",
    "cross_entropy_p_holm": "scores.versus.cross_entropy.p_holm",
    "both_correct": "scores.by_modality.both.k", "both_predictions": "scores.by_modality.both.n",
    "rna_alone_correct": "scores.by_modality.rna.k",
    "slide_alone_correct": "scores.by_modality.slide.k",
    "fusion_weight": "scores.by_modality.weight.mean",
    "paper_accuracy": "row.paper.printed", "paper_counts": "row.paper.counts",
}  # fmt: skip


def csv_text(results: Results) -> str:
    """A line for each row and group of splits, with every number at full precision."""
    lines = []
    for row in results.rows:
        for group in results.groups:
            line = SimpleNamespace(
                experiment=results.experiment, row=row, overrides=" ".join(row.overrides),
                group=group, scores=group.scores[row.key], skipped=results.skipped.get(row.key),
            )  # fmt: skip
            cells = (_at(line, path) for path in CSV_COLUMNS.values())
            lines.append([guarded(cell) if isinstance(cell, str) else cell for cell in cells])
    return pd.DataFrame(lines, columns=list(CSV_COLUMNS), dtype=object).to_csv(index=False)


def _at(value: Any, path: str) -> Any:
    """The value at a path such as ``scores.test.auc``; None if one of its parts is."""
    for name in path.split("."):
        value = None if value is None else getattr(value, name)
    return value
