"""Draws the figures of survival and of numbers: arrays in, a matplotlib figure out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from gimp_fast.evaluation.kaplan_meier import CalibrationGroups, Outcomes, kaplan_meier
from gimp_fast.pages import style

_TIMES_AT_RISK = 6


def survival_curves(groups: Mapping[str, Outcomes], unit: str) -> Figure:
    """Kaplan–Meier curves with 95 % bands, censored patients as ticks, and numbers at risk."""
    figure = style.new_figure(height=4.0 + 0.22 * len(groups))
    axes, below = figure.subplots(2, 1, height_ratios=[5, 0.5 + 0.42 * len(groups)], sharex=True)
    last = max(float(outcomes.time.max()) for outcomes in groups.values())
    ticks = _round_ticks(last)
    colours = style.colours(len(groups))
    for row, ((name, outcomes), colour) in enumerate(zip(groups.items(), colours, strict=True)):
        curve = kaplan_meier(outcomes)
        low, high = curve.interval()
        times = np.r_[0.0, curve.times]
        text = f"{style.plain(name)}: {int(curve.events.sum())} of {len(outcomes)} with the event"
        axes.step(times, np.r_[1.0, curve.survival], where="post", color=colour, label=text)
        bands = np.r_[1.0, low], np.r_[1.0, high]
        axes.fill_between(times, *bands, step="post", color=colour, alpha=0.15, linewidth=0)
        lost = curve.censored > 0
        look = {"color": colour, "marker": "|", "ls": "", "ms": 5, "mew": 0.8}
        axes.plot(curve.times[lost], curve.survival[lost], **look)
        for time in ticks:
            count = f"{int(curve.at_risk_at(np.array([time]))[0])}"
            below.text(time, -row, count, ha="center", va="center", fontsize=8, color=colour)
    axes.set(ylim=(0, 1.02), ylabel="Share without the event", xlim=(0, last))
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), borderaxespad=0.2)
    axes.set_xticks(ticks)
    below.set(ylim=(-len(groups) + 0.4, 0.6), xlabel=f"Time ({style.plain(unit)})")
    below.set_yticks([])
    below.set_ylabel("At risk", rotation=0, ha="right", va="center")
    below.grid(visible=False)
    below.spines[:].set_visible(False)
    below.tick_params(length=0)
    return figure


def survival_calibration(
    groups: CalibrationGroups, horizon: str, patients: str = "test patients"
) -> Figure:
    """Predicted against observed survival at a horizon; ``patients`` is of the legend."""
    figure = style.new_figure(height=4.0)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=style.INK, lw=0.9, ls=(0, (2, 3)), label="calibrated")
    reach = np.clip([groups.observed - groups.low, groups.high - groups.observed], 0, None)
    axes.errorbar(
        groups.predicted, groups.observed, reach, color=style.ACCENT, marker="o", ms=5, ls="",
        elinewidth=1.4, capsize=3, clip_on=False, label=patients, zorder=3,
    )  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xlabel(f"Predicted survival at {horizon}")
    axes.set_ylabel("Observed (Kaplan–Meier)")
    axes.legend(loc="upper left")
    return figure


def predicted_against_true(
    predicted: np.ndarray, truth: np.ndarray, patients: str = "test patients"
) -> Figure:
    """A point for each patient, and the line on which they should lie."""
    figure = style.new_figure(height=4.0)
    axes = figure.add_subplot()
    ends = [min(predicted.min(), truth.min()), max(predicted.max(), truth.max())]
    axes.plot(ends, ends, color=style.INK, lw=0.9, ls=(0, (2, 3)), label="equal")
    look = {"s": 18, "alpha": 0.7, "linewidths": 0.4, "edgecolors": style.SURFACE}
    axes.scatter(truth, predicted, color=style.ACCENT, label=patients, **look)
    axes.set(xlabel="True value", ylabel="Predicted value")
    axes.legend(loc="upper left")
    return figure


def _round_ticks(last: float) -> np.ndarray:
    """A handful of round times from 0."""
    raw = last / _TIMES_AT_RISK
    size = 10.0 ** np.floor(np.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw)
    return np.arange(0, last, step)
