"""Figures of a run, one by one, for a notebook: those of its report, and a map of attention.

Each function returns a matplotlib figure, which a notebook shows and ``savefig`` writes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from gimp_fast.errors import GimpError, one_of
from gimp_fast.files.table import open_table
from gimp_fast.pages import style
from gimp_fast.report.panels import STAGES, curve_panel
from gimp_fast.report.target_sections import target_sections
from gimp_fast.runs import layout
from gimp_fast.runs.map_records import read_maps
from gimp_fast.runs.records import Run, open_run


def plot_curves(run: Run | str | Path, stage: str = "finetune", quantity: str = "loss") -> Figure:
    """One quantity of training and validation patients over the epochs of a stage.

    Args:
        run: an open run, or its folder.
        stage: ``"genes"``, ``"pretrain"`` or ``"finetune"``.
        quantity: as in ``metrics.jsonl``: ``"loss"``, ``"accuracy"``, ``"auc"``, ``"c_index"`` …
            Of one of several targets, with its name before it: ``"os:c_index"``.

    Raises:
        GimpError: the run has no such stage or quantity, or cannot be read.
    """
    run = _opened(run)
    if stage not in STAGES or not run.epochs.get(stage):
        raise GimpError(f"{run.path}: {_not_there(stage, list(run.epochs))}")
    epochs = run.epochs[stage]
    known = sorted({name for epoch in epochs for name in (*epoch.train, *epoch.val)})
    kind = quantity.rpartition(":")[2]
    with style.rc():
        try:
            panel = curve_panel(run, stage, quantity, kind)
        except KeyError:  # in the file, and no curve of the report: a count, a rate
            panel = None
    if panel is None:
        raise GimpError(f"{run.path}, stage {stage}: {_not_there(quantity, known)}")
    return panel.figure


def plot_confusion(run: Run | str | Path, target: str | None = None) -> Figure:
    """The confusion matrix of the test patients: counts, and their share of the true class.

    Args:
        run: an open run, or its folder.
        target: of several, which one.

    Raises:
        GimpError: the target has no classes, or the run no test patients, or cannot be read.
    """
    return _of_test(run, "confusion", target)


def plot_roc(run: Run | str | Path, target: str | None = None) -> Figure:
    """ROC curves of the test patients and their areas; arguments as of :func:`plot_confusion`."""
    return _of_test(run, "roc", target)


def plot_survival(run: Run | str | Path, target: str | None = None) -> Figure:
    """Kaplan–Meier curves of the test patients, in two groups by their predicted risk.

    The groups are cut at the median risk of the training patients.

    Args:
        run: an open run, or its folder.
        target: of several, which one.

    Raises:
        GimpError: the target is not survival, or the run has no test patients, or cannot be read.
    """
    return _of_test(run, "kaplan_meier", target)


def plot_attention(maps: Run | str | Path, case_id: str) -> Figure:
    """The patches of a patient's slides, each where it lies, by its percentile of attention.

    Args:
        maps: a run with heatmaps, or a folder that ``gimp-fast heatmap`` or ``make_heatmaps``
            wrote.
        case_id: of the patient.

    Raises:
        GimpError: there is no map of this patient, or none with places of patches.
    """
    folder = maps.path if isinstance(maps, Run) else Path(maps)
    if not (folder / layout.MAPS).is_file():
        folder = folder / layout.HEATMAPS
    patients = {record["case_id"]: record for record in read_maps(folder).get("patients", [])}
    if case_id not in patients:
        raise GimpError(f"{folder}: {_not_there(case_id, list(patients))}")
    slides = [slide for slide in patients[case_id]["slides"] if "patches" in slide["files"]]
    drawn = {slide["slide_id"]: _patches(folder, slide) for slide in slides}
    drawn = {name: patches for name, patches in drawn.items() if len(patches)}
    if not drawn:
        raise GimpError(f"{folder}: the patches of '{case_id}' have no places to draw")
    with style.rc():
        figure = style.new_figure(width=style.WIDTH * len(drawn), height=4.2)
        rows = figure.subplots(1, len(drawn), squeeze=False)[0]
        for axes, (name, patches) in zip(rows, drawn.items(), strict=True):
            squares = axes.add_collection(_squares(patches))
            axes.autoscale_view()
            axes.set(aspect="equal", xticks=[], yticks=[], title=style.plain(name))
            axes.invert_yaxis()  # pixels count from the top
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
        figure.colorbar(squares, ax=rows.tolist(), label="Percentile of attention")
    return figure


def _squares(patches: np.ndarray) -> PolyCollection:
    """The patches as squares, coloured by percentile; rows as of :func:`_patches`."""
    corner, side, percentile = patches[:, None, :2], patches[:, 2, None, None], patches[:, 3]
    corners = corner + side * np.array([[0, 0], [1, 0], [1, 1], [0, 1]])  # (patches, 4, 2)
    squares = PolyCollection(corners, array=percentile, edgecolors="none", rasterized=True)
    squares.set_clim(0, 100)
    return squares


def _patches(folder: Path, slide: dict) -> np.ndarray:
    """(patches, 4) x, y, side and percentile of those whose place is known."""
    table = open_table(folder / slide["folder"] / slide["files"]["patches"])
    columns = ("x", "y", "patch_size", "percentile")
    rows = [[float(cell) for cell in cells] for _, *cells in table.rows(*columns) if all(cells)]
    return np.array(rows, np.float64).reshape(len(rows), len(columns))


def _of_test(run: Run | str | Path, name: str, target: str | None) -> Figure:
    """A figure of the test set, of the only target or of the one that is asked for."""
    run = _opened(run)
    with style.rc():
        sections = {section["title"]: section["panels"] for section in target_sections(run)}
    if target is None and len(sections) == 1:
        target = next(iter(sections))
    if target not in sections:
        asked = "found no target" if target is None else _not_there(target, list(sections))
        raise GimpError(f"{run.path}: {asked}; the run has {', '.join(sections)}")
    found = {panel.name.removeprefix(f"{target}_"): panel for panel in sections[target]}
    if name not in found:
        raise GimpError(f"{run.path}: {_not_there(name, list(found))}")
    if found[name].figure is None:
        raise GimpError(f"{run.path}: {found[name].caption}")
    return found[name].figure


def _opened(run: Run | str | Path) -> Run:
    return run if isinstance(run, Run) else open_run(run)


def _not_there(asked: str, known: list[str]) -> str:
    return f"found no '{asked}'; expected {one_of(asked, known)}"
