"""``faithfulness.html``: curves, areas and verdicts on one page, and its figures as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from gimp_fast.files.atomic import write_text
from gimp_fast.heatmaps.faithfulness.curves import CURVES, DELETION
from gimp_fast.heatmaps.faithfulness.patient import ATTENTION, KINDS, RANDOM
from gimp_fast.heatmaps.faithfulness.summary import BOTH, RESAMPLES
from gimp_fast.heatmaps.faithfulness.verdict import NAMES
from gimp_fast.heatmaps.options import GRADIENT
from gimp_fast.pages import style
from gimp_fast.pages.svg import inline_svg
from gimp_fast.pages.templates import get_template
from gimp_fast.runs import layout
from gimp_fast.runs.method_titles import method_title

# Colour, dashes and marker of each order: they differ without colour too.
_LOOKS = {
    ATTENTION: (style.ACCENT, "solid", "o"),
    GRADIENT: (style.VAL, (0, (5, 2)), "s"),
    RANDOM: (style.CATEGORIES[-1], (0, (1.5, 1.5)), None),
}
_LEAST = 0.1  # height of an axis of probabilities, lest small changes look large
_TITLES = {ATTENTION: "Attention", GRADIENT: "Gradient × input", RANDOM: "Random order"}
_CURVE_TITLES = {
    **{curve: curve.capitalize() for curve in CURVES},
    BOTH: "Both, their mean",
}


def write_page(summary: dict[str, Any], folder: Path) -> None:
    """Write the page of a check into a folder, and ``faithfulness-*.png`` and ``.svg`` beside it.

    Args:
        summary: what ``faithfulness.json`` holds.
        folder: which exists.
    """
    sections = []
    for kind in KINDS:
        stem = folder / layout.faithfulness_figure(kind)
        if kind not in summary["kinds"]:
            # A figure of an earlier check would contradict the page.
            for suffix in (".png", ".svg"):
                stem.with_suffix(suffix).unlink(missing_ok=True)
            continue
        of = summary["kinds"][kind]
        with style.rc():
            style.save(mean_curves(of, kind, summary), stem)
        sections.append({"kind": kind, "of": of, "svg": _svg(stem, of), "rows": _rows(of)})
    page = get_template("faithfulness.html.j2", "gimp_fast.heatmaps").render(
        summary=summary,
        method=method_title(summary["model"]["method"]),
        sections=sections,
        curves=_CURVE_TITLES,
        resamples=RESAMPLES,
        files=(layout.FAITHFULNESS, layout.FAITHFULNESS_TABLE),
    )
    write_text(folder / layout.FAITHFULNESS_PAGE, page)


def mean_curves(of: dict[str, Any], kind: str, summary: dict[str, Any]) -> Figure:
    """Deletion and insertion side by side, the mean of all patients, a line for each order."""
    figure = style.new_figure(2 * style.WIDTH - 0.8, 3.4)
    panels = figure.subplots(1, 2, sharey=True)
    shares = 100 * np.array(of["shares"])
    for axes, curve in zip(panels, CURVES, strict=True):
        for order in of["orders"]:
            colour, dashes, marker = _LOOKS[order]
            values, label = of["curves"][curve][order], _TITLES[order]
            axes.plot(shares, values, color=colour, ls=dashes, marker=marker, ms=3.5, label=label)
        verb = "taken away" if curve == DELETION else "added"
        axes.set(xlim=(-2, 102), xlabel=f"% of {kind} {verb}, the highest first")
        axes.set_title(_CURVE_TITLES[curve], fontsize=9, loc="left")
    if summary["model"]["classes"]:
        low, high = panels[0].get_ylim()
        missing = max(_LEAST - (high - low), 0)
        panels[0].set_ylim(low - missing / 2, high + missing / 2)
    panels[0].set_ylabel(style.plain(value_text(summary)))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3)
    return figure


def value_text(summary: dict[str, Any]) -> str:
    """What the curves are of, in words that begin with a capital."""
    words = summary["explained"]
    if summary["model"]["classes"]:
        return words[:1].upper() + words[1:]
    return f"Change of the {words}\nfrom the whole patient (turned, see below)"


def _svg(stem: Path, of: dict[str, Any]) -> Markup:
    alt = "; ".join(
        f"{curve}: " + ", ".join(f"{_TITLES[o]} {area:.3g}" for o, area in areas.items())
        for curve, areas in of["areas"].items()
    )
    text = stem.with_suffix(".svg").read_text(encoding="utf-8")
    return inline_svg(text, stem.name, f"Mean curves. Areas below them: {alt}")


def _rows(of: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Title and cells of the table: for each pair of orders, the gain of each curve."""
    by_pair: dict[tuple[str, str], dict[str, str]] = {}
    for gain in of["gains"]:
        pair = gain["order"], gain["against"]
        by_pair.setdefault(pair, {})[gain["curve"]] = gain["text"]
    return [
        (f"{_TITLES[order]} minus {NAMES[against]}", [texts[curve] for curve in _CURVE_TITLES])
        for (order, against), texts in by_pair.items()
    ]
