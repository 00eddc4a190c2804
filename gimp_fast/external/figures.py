"""Draws the figures of a validation: numbers in, a matplotlib figure out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gimp_fast.evaluation.calibration import Reliability
from gimp_fast.evaluation.intervals import Estimate
from gimp_fast.external.missing_result import MissingCurve
from gimp_fast.pages import style

_ROW = 0.27  # inches
_DASHED = {"color": style.INK, "lw": 0.9, "ls": (0, (2, 3))}


@dataclass(frozen=True)
class Line:
    """A row of :func:`intervals`; without an estimate, it is a heading."""

    text: str
    estimate: Estimate | None = None
    colour: str = style.ACCENT


def intervals(
    lines: Sequence[Line], label: str, bounds: tuple[float, float] | None, mark: float | None
) -> Figure:
    """A point with its interval for each row.

    Args:
        lines: rows from above.
        label: of the axis.
        bounds: that the axis stays in; None for none.
        mark: where a dashed line stands.
    """
    figure = style.new_figure(style.WIDTH + 0.9, 0.8 + _ROW * len(lines))
    axes = figure.add_subplot()
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_yticks(range(len(lines)), [style.plain(line.text) for line in lines])
    ends = [] if mark is None else [mark]
    for place, (line, text) in enumerate(zip(lines, axes.get_yticklabels(), strict=True)):
        found = line.estimate
        if found is None:
            text.set_fontweight("bold")
            continue
        axes.plot([found.low, found.high], [place, place], color=line.colour, lw=1.8)
        axes.plot(found.value, place, marker="o", ms=5.5, color=line.colour)
        ends += [found.low, found.high]
    if mark is not None:
        axes.axvline(mark, **_DASHED)
    margin = 0.04 * (max(ends) - min(ends) or 1.0)
    low, high = min(ends) - margin, max(ends) + margin
    if bounds is not None:
        low, high = max(low, bounds[0] - margin / 2), min(high, bounds[1] + margin / 2)
    axes.set(xlim=(low, high), xlabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    return figure


def reliability(before: Reliability, after: Reliability | None) -> Figure:
    """Confidence against the share that is right, as predicted and after scaling."""
    figure = style.new_figure(height=4.2)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], label="calibrated", **_DASHED)
    series = [(before, style.ACCENT, "o", "as predicted")]
    if after is not None:
        series.append((after, style.VAL, "s", "after scaling"))
    for bins, colour, marker, label in series:
        low, high = bins.wilson()
        # A share of one may lie a hair above its own interval.
        reach = np.clip([bins.share - low, high - bins.share], 0, None)
        axes.errorbar(
            bins.confidence, bins.share, reach, color=colour, marker=marker, ms=5, ls="",
            elinewidth=1.2, capsize=2.5, clip_on=False, label=label, zorder=3, alpha=0.85,
        )  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="Confidence", ylabel="Share that is right")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, borderaxespad=0.2)
    return figure


def missing(curve: MissingCurve, label: str, bounds: tuple[float, float] | None) -> Figure:
    """A score by the share of patients who lack a modality, beside the best of one modality.

    Args:
        curve: of the models of both.
        label: of the axis of shares.
        bounds: that the score stays in; None for none.
    """
    figure = style.new_figure(height=3.4)
    axes = figure.add_subplot()
    series = [("score", style.ACCENT, "-", "slides and RNA, 95 % band")]
    if curve.worst is not None:
        series.append(("reference", style.VAL, (0, (4, 2)), "best of one modality"))
    for name, colour, line, text in series:
        known = [point for point in curve.points if getattr(point, name) is not None]
        at = [100 * point.share for point in known]
        found = [getattr(point, name) for point in known]
        axes.plot(at, [one.value for one in found], color=colour, ls=line, marker="o", ms=3.5,
                  label=text, clip_on=False)  # fmt: skip
        if name == "score":
            ends = [one.low for one in found], [one.high for one in found]
            axes.fill_between(at, *ends, color=colour, alpha=0.15, linewidth=0)
    axes.set(xlim=(0, 100), xlabel=label, ylabel=curve.title)
    if bounds is not None:
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, bounds[0]), min(high, bounds[1]))
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, borderaxespad=0.2)
    return figure
