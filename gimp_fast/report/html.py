"""``report.html``: one self-contained page about a run, and its figures as files beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gimp_fast import __version__
from gimp_fast.evaluation.intervals import WITHOUT_SPREAD
from gimp_fast.files.atomic import write_text
from gimp_fast.pages import style
from gimp_fast.pages.svg import inline_svg
from gimp_fast.pages.templates import get_template
from gimp_fast.report import panels
from gimp_fast.report.case_table import case_section
from gimp_fast.report.modality_table import modality_section
from gimp_fast.report.outcome_panels import outcome_cases
from gimp_fast.report.panels import Panel
from gimp_fast.report.target_sections import is_outcome, target_sections
from gimp_fast.runs import layout
from gimp_fast.runs.map_records import read_verdicts
from gimp_fast.runs.method_titles import method_title
from gimp_fast.runs.records import Run, TargetSummary, open_run
from gimp_fast.runs.score_texts import READS
from gimp_fast.runs.scores import Fusion


def write_report(run_dir: Path | str) -> Path:
    """Write ``figures/*.png``, ``figures/*.svg`` and ``report.html`` into a finished run's folder.

    Args:
        run_dir: a run folder. All its records are read, and, if it has heatmaps, their summary and
            the first pictures in it.

    Returns:
        Path of ``report.html``.

    Raises:
        GimpError: a record is missing or damaged; the message names the file.
    """
    run = open_run(run_dir).read_all()
    folder, metrics = run.path / layout.FIGURES, run.metrics
    folder.mkdir(exist_ok=True)
    with style.rc():
        curves = {
            title: [written_panel(panel, folder) for panel in drawn]
            for title, drawn in panels.curve_panels(run).items()
        }
        sections = target_sections(run)
        for section in sections:
            section["figures"] = [written_panel(panel, folder) for panel in section.pop("panels")]
        embeddings = [written_panel(panel, folder) for panel in panels.tsne_panels(run)]
    page = get_template("report.html.j2", "gimp_fast.report").render(
        version=__version__,
        metrics=metrics,
        method=method_title(metrics.method),
        about=_about(run),
        sections=sections,
        curves=curves,
        embeddings=embeddings,
        **modality_section(run),
        **_cases(run),
        verdicts=read_verdicts(run.path / layout.HEATMAPS),
        check_page=f"{layout.HEATMAPS}/{layout.FAITHFULNESS_PAGE}",
        about_intervals=WITHOUT_SPREAD,
        config=run.config_text,
        environment=_flat(run.environment),
    )
    report = run.path / layout.REPORT
    write_text(report, page)
    return report


def _cases(run: Run) -> dict[str, Any]:
    """What the templates need for the table of cases."""
    if run.metrics.targets or is_outcome(run):
        return outcome_cases(run)
    return case_section(run) | {"outcome_columns": ()}


def written_panel(panel: Panel, folder: Path) -> dict[str, Any]:
    """Write a panel's figure; returns what a page shows of it: title, caption, svg, wide.

    Without ``svg``, the caption says why there is none.
    """
    stem, svg, is_wide = folder / panel.name, None, False
    if panel.figure is None:
        # A figure of an earlier report would contradict the caption that replaces it.
        for suffix in (".png", ".svg"):
            stem.with_suffix(suffix).unlink(missing_ok=True)
    else:
        style.save(panel.figure, stem)
        text = stem.with_suffix(".svg").read_text(encoding="utf-8")
        svg = inline_svg(text, panel.name, panel.alt)
        is_wide = panel.figure.get_figwidth() > 1.4 * style.WIDTH
    return {"title": panel.title, "caption": panel.caption, "svg": svg, "wide": is_wide}


def _about(run: Run) -> list[tuple[str, str]]:
    """Titles and texts about the model, its training and its patients."""
    metrics, config = run.metrics, run.config
    counts = ", ".join(f"{count} {part}" for part, count in metrics.cohort.n.items())
    stages = "; ".join(
        f"{panels.STAGES[name][0].lower()} {len(epochs)}"
        for name, epochs in run.epochs.items()
        if name in panels.STAGES
    )
    facts = [
        ("Method", method_title(metrics.method)),
        ("Reads", READS[metrics.modalities]),
        ("Covariates", ", ".join(map(str, config.get("covariates") or ()))),
        ("Fusion weight", "" if metrics.fusion is None else _weight(metrics.fusion)),
        ("Target", "" if metrics.target is None else _target(metrics.target)),
        ("Targets", "; ".join(map(_target, (metrics.targets or {}).values()))),
        ("Classes", ", ".join(metrics.cohort.classes)),
        ("Patients", f"{counts} (split {metrics.cohort.split})"),
        ("Epochs", stages),
        ("Weights of epoch", "" if metrics.best_epoch is None else str(metrics.best_epoch)),
        ("Seed", str(metrics.seed)),
        ("Precision", str(config.get("precision") or "")),
        ("Trained on", str(run.environment.get("gpu") or "CPU")),
        ("gimp_fast", str(run.environment.get("gimp_fast") or "")),
    ]
    return [(title, text) for title, text in facts if text]


def _target(target: TargetSummary) -> str:
    unit = f", in {target.unit}" if target.unit else ""
    return f"{target.name} ({target.kind}{unit})"


def _weight(fusion: Fusion) -> str:
    return f"{fusion.weight:g} of both" if fusion.weight else "0: slides are not used"


def _flat(data: dict, prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            rows += _flat(value, f"{name}.")
        else:
            rows.append((name, value if isinstance(value, str) else json.dumps(value)))
    return rows
