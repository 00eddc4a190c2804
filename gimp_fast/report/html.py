"""``report.html``: one self-contained page about a run, and its figures as files beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gimp_fast import __version__
from gimp_fast.files.atomic import write_text
from gimp_fast.pages import style
from gimp_fast.pages.svg import inline_svg
from gimp_fast.report import panels
from gimp_fast.report.calibration import calibration_panel
from gimp_fast.report.case_table import case_section
from gimp_fast.report.panels import Panel
from gimp_fast.runs import layout
from gimp_fast.runs.names import method_title
from gimp_fast.runs.records import Estimate, Run, SplitMetrics, open_run

METRIC_TITLES = {
    "accuracy": "Accuracy",
    "auc": "AUC",
    "balanced_accuracy": "Balanced accuracy",
    "f1_macro": "Macro F1",
}
MODALITIES = {"both": "slides and RNA", "slide": "slides only", "rna": "RNA only"}


@dataclass(frozen=True)
class Figure:
    """A panel as the page shows it; without ``svg``, the caption says why there is none."""

    title: str
    caption: str
    svg: Markup | None
    wide: bool = False


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
    folder = run.path / layout.FIGURES
    folder.mkdir(exist_ok=True)
    with style.rc():
        curves = {
            title: [_written(panel, folder) for panel in drawn]
            for title, drawn in panels.curve_panels(run).items()
        }
        test = [
            _written(panel, folder)
            for panel in (
                panels.confusion_panel(run),
                panels.roc_panel(run),
                calibration_panel(run),
            )
        ]
        embeddings = [_written(panel, folder) for panel in panels.tsne_panels(run)]
    environment = Environment(
        loader=PackageLoader("gimp_fast.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        version=__version__,
        metrics=run.metrics,
        method=method_title(run.metrics.method),
        about=_about(run),
        tiles=_tiles(run.metrics.test),
        rows=_metric_rows(run),
        test_figures=test,
        curves=curves,
        embeddings=embeddings,
        **case_section(run),
        config=run.config_text,
        environment=_flat(run.environment),
    )
    report = run.path / layout.REPORT
    write_text(report, page)
    return report


def _written(panel: Panel, folder: Path) -> Figure:
    stem = folder / panel.name
    if panel.figure is None:
        # A figure of an earlier report would contradict the caption that replaces it.
        for suffix in (".png", ".svg"):
            stem.with_suffix(suffix).unlink(missing_ok=True)
        return Figure(panel.title, panel.caption, None)
    style.save(panel.figure, stem)
    svg = stem.with_suffix(".svg").read_text(encoding="utf-8")
    wide = panel.figure.get_figwidth() > 1.4 * style.WIDTH
    return Figure(panel.title, panel.caption, inline_svg(svg, panel.name, panel.alt), wide)


def _tiles(test: SplitMetrics | None) -> list[dict]:
    tiles = []
    for key, title in METRIC_TITLES.items():
        estimate: Estimate | None = getattr(test, key, None)
        if estimate is not None:
            tiles.append({"title": title, "estimate": estimate, "n": test.n})
    return tiles


def _metric_rows(run: Run) -> list[tuple[str, str, str]]:
    rows = []
    for key, title in METRIC_TITLES.items():
        cells = []
        for metrics in (run.metrics.val, run.metrics.test):
            estimate = getattr(metrics, key, None)
            cells.append("–" if estimate is None else panels.with_interval(estimate))
        rows.append((title, *cells))
    return rows


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
        ("Reads", MODALITIES[metrics.modalities]),
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


def _flat(data: dict, prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            rows += _flat(value, f"{name}.")
        else:
            rows.append((name, value if isinstance(value, str) else json.dumps(value)))
    return rows
