"""Whether probabilities mean what they say: reliability diagram, calibration error, Brier score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gimp_fast.pages import style
from gimp_fast.report.panels import Panel
from gimp_fast.runs.records import Run

BINS = 10
FEW = 100  # cases below which the page warns of chance


@dataclass(frozen=True)
class Bins:
    """Cases by their confidence, the probability of the predicted class; empty bins are left out.

    Attributes:
        confidence: (bins,) mean confidence of the cases of a bin.
        share: (bins,) how many of them are right.
        count: (bins,) cases.
    """

    confidence: np.ndarray
    share: np.ndarray
    count: np.ndarray

    def expected_error(self) -> float:
        """ECE: mean distance of confidence and share (Guo et al., ICML 2017, eq. 3)."""
        return float(np.average(np.abs(self.confidence - self.share), weights=self.count))

    def wilson(self) -> np.ndarray:
        """(2, bins): 95 % Wilson interval of each share."""
        z, n, p = 1.959964, self.count, self.share
        middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
        return np.stack([middle - half, middle + half])


def binned(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> Bins:
    """Sort cases into bins of equal width.

    Args:
        confidence: (n,) in 0 … 1.
        right: (n,) bool.
        bins: how many.
    """
    # Half-open on the left, so that a confidence of one half is not in the bin above it.
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    used = np.unique(place)
    rows = [place == bin_ for bin_ in used]
    return Bins(
        np.array([confidence[row].mean() for row in rows]),
        np.array([right[row].mean() for row in rows]),
        np.array([row.sum() for row in rows]),
    )


def brier_score(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Mean squared error of probabilities, 0 is best (Brier 1950).

    Args:
        probabilities: (n, classes).
        truth: (n,) int.

    Returns:
        With two classes that of either of them, at most 1; with more the sum over classes, at most
        2.
    """
    squares = (probabilities - np.eye(probabilities.shape[1])[truth]) ** 2
    return float(squares[:, :1].mean() if squares.shape[1] == 2 else squares.sum(1).mean())


def calibration_panel(run: Run) -> Panel:
    """Test cases by confidence."""
    name, title = "calibration", "Calibration"
    test = run.predictions.of("test")
    if not len(test):
        return Panel(name, title, "Left out: predictions.csv has no test case.")
    bins = binned(test.probabilities.max(1), test.hits)
    error, brier = bins.expected_error(), brier_score(test.probabilities, test.label)
    caption = (
        f"{len(test)} test cases in bins of confidence, the probability of the predicted class; "
        f"lines are 95 % Wilson intervals. Expected calibration error (ECE) {error:.3f}; Brier "
        f"score {brier:.3f}, 0 is best{'' if len(test.classes) == 2 else ', 2 worst'}."
    )
    if len(test) < FEW:
        caption += " An ECE of so few cases is above zero by chance alone."
    alt = f"Reliability diagram of {len(test)} test cases; ECE {error:.3f}. " + "; ".join(
        f"confidence {c:.2f}: {100 * s:.0f} % of {n} right"
        for c, s, n in zip(bins.confidence, bins.share, bins.count, strict=True)
    )
    return Panel(name, title, caption, alt, _draw(bins))


def _draw(bins: Bins) -> Figure:
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
    width = 1 / BINS
    lefts = np.clip(np.ceil(bins.confidence * BINS) - 1, 0, BINS - 1) * width
    below.bar(lefts, bins.count, width=width * 0.94, align="edge", color=style.ACCENT)
    below.set(xlabel="Confidence", ylabel="Cases")
    below.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    return figure
