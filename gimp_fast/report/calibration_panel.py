"""The panel of calibration: whether probabilities mean what they say."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gimp_fast.evaluation.calibration import BINS, ECE, Reliability, brier, reliability
from gimp_fast.pages import style
from gimp_fast.report.panels import Panel
from gimp_fast.runs.records import Run

FEW = 100  # cases below which the page warns of chance


def calibration_panel(run: Run) -> Panel:
    """Reliability diagram of the test cases, with the calibration error and the Brier score."""
    name, title = "calibration", "Calibration"
    test = run.predictions.of("test")
    if not len(test):
        return Panel(name, title, "Left out: predictions.csv has no test case.")
    confidence = test.probabilities.max(1)
    bins = reliability(confidence, test.hits)
    caption = (
        f"{len(test)} test cases in bins of confidence, the probability of the predicted class; "
        "each bin holds equally many cases, and lines are 95 % Wilson intervals. The bars below "
        f"count cases by confidence. {ECE}: {bins.error:.3f}. Brier score "
        f"{brier(test.probabilities, test.label):.3f} (0 is best, 1 worst)."
    )
    if len(test) < FEW:
        caption += " With so few cases, the ECE is above zero by chance alone."
    alt = f"Reliability diagram of {len(test)} test cases; ECE {bins.error:.3f}. " + "; ".join(
        f"confidence {c:.2f}: {100 * s:.0f} % of {n} right"
        for c, s, n in zip(bins.confidence, bins.share, bins.count, strict=True)
    )
    return Panel(name, title, caption, alt, _draw(bins, confidence))


def _draw(bins: Reliability, confidence: np.ndarray) -> Figure:
    figure = style.new_figure(height=4.5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    above.plot([0, 1], [0, 1], color=style.INK, lw=0.9, ls=(0, (2, 3)), label="calibrated")
    low, high = bins.wilson()
    # A share of one may lie a hair above its own interval.
    reach = np.clip([bins.share - low, high - bins.share], 0, None)
    above.errorbar(
        bins.confidence, bins.share, reach, color=style.ACCENT, marker="o", ms=5, ls="",
        elinewidth=1.4, capsize=3, clip_on=False, label="test cases", zorder=3,
    )  # fmt: skip
    above.set(xlim=(0, 1), ylim=(0, 1.0), ylabel="Share that is right")
    above.legend(loc="upper left")
    below.hist(confidence, bins=BINS, range=(0, 1), rwidth=0.94, color=style.ACCENT)
    below.set(xlabel="Confidence", ylabel="Cases")
    below.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    return figure
