"""How much the weights of a patient differ, and the colours that show it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from gimp_fast.heatmaps.options import EVEN, PERCENTILE

# A patch stands out if it has half as much again as an even share: the attention of untrained
# models differs by a few percent among patches, and that of trained ones by a factor.
STANDS_OUT = 1.5
_EVEN_SHARE = 0.95  # of the patches that would be read evenly; below it some are left aside
_LOWEST, _HIGHEST = 0.5, 8.0  # of the absolute scale, in multiples of an even share
# In words, for pages.
COLOURS = {
    PERCENTILE: "percentiles among the patches of a patient, yellow is highest; effectively flat "
    "maps show multiples of an even share",
    EVEN: "multiples of an even share, yellow is 8 and more",
}


@dataclass(frozen=True)
class Spread:
    """How much the weights of a patient's patches differ.

    Attributes:
        highest: the largest weight, in multiples of an even share.
        effective_share: (Σ|w|)² / (N Σ w²): 1 if all weights are equal, 1 / N if one has all.
    """

    highest: float
    effective_share: float

    @classmethod
    def of(cls, times_even: np.ndarray) -> Spread:
        """From the (N,) weights of all patches of a patient in multiples of an even share."""
        size = np.abs(times_even.astype(np.float64))
        squares = len(size) * float((size**2).sum())
        return cls(float(times_even.max()), float(size.sum()) ** 2 / squares if squares else 1.0)

    @property
    def flat(self) -> bool:
        """No patch stands out, and hardly any is left aside: the map would show noise."""
        return self.highest < STANDS_OUT and self.effective_share > _EVEN_SHARE

    @property
    def words(self) -> str:
        return f"effectively flat: the highest patch has {self.highest:.4g} times an even share"

    def record(self) -> dict[str, float | bool]:
        """For ``heatmaps.json``."""
        return {
            "highest_times_even": round(self.highest, 6),
            "effective_share": round(self.effective_share, 6),
            "flat": self.flat,
        }


@dataclass(frozen=True)
class ColourScale:
    """What the colours of a map stand for.

    Attributes:
        name: one of ``SCALES``.
        label: beside the colour bar.
        ticks: places on the bar, 0 … 100, and their texts.
    """

    name: str
    label: str
    ticks: tuple[float, ...]
    texts: tuple[str, ...]

    def places(self, weights: pd.DataFrame) -> np.ndarray:
        """(N,) places of patches on the bar, 0 … 100, from their ``percentile``/``times_even``."""
        if self.name == PERCENTILE:
            return weights["percentile"].to_numpy(float)
        return _places_of(weights["times_even"].to_numpy(float))


def _places_of(times_even: np.ndarray) -> np.ndarray:
    """Doubling is the same step everywhere; an even share is at a quarter of the bar."""
    doubled = np.log2(np.clip(times_even, _LOWEST, _HIGHEST) / _LOWEST)
    return 100 * doubled / np.log2(_HIGHEST / _LOWEST)


def colour_scale(asked: str, spread: Spread, weights: pd.DataFrame) -> ColourScale:
    """The scale that is asked for, with the other beside its ticks.

    A flat map always has the absolute scale: percentiles would paint its noise in all colours.

    Args:
        asked: one of ``SCALES``.
        spread: of the patient.
        weights: of all patches of the patient.
    """
    times_even = weights["times_even"].to_numpy(float)
    if asked == PERCENTILE and not spread.flat:
        ticks = (0.0, 25.0, 50.0, 75.0, 100.0)
        values = np.percentile(times_even, ticks)
        texts = tuple(f"{t:.0f} %  ({v:.2g} ×)" for t, v in zip(ticks, values, strict=True))
        label = "Percentile among the patient's patches (times an even share)"
        return ColourScale(PERCENTILE, label, ticks, texts)
    places, texts = even_ticks()
    marks = _even_marks()
    below = [100 * float((times_even < mark).mean()) for mark in marks]
    texts[1:] = [f"{t}  ({b:.0f} % below)" for t, b in zip(texts[1:], below[1:], strict=True)]
    label = "Times an even share (patches of the patient below it)"
    return ColourScale(EVEN, label, tuple(places), tuple(texts))


def even_ticks() -> tuple[list[float], list[str]]:
    """The ticks of the absolute scale: places on the bar, 0 … 100, and their texts."""
    marks = _even_marks()
    texts = [f"{mark:g} ×" for mark in marks]
    texts[0], texts[-1] = f"≤ {texts[0]}", f"≥ {texts[-1]}"
    return _places_of(marks).tolist(), texts


def _even_marks() -> np.ndarray:
    """Multiples of an even share that have a tick, each twice the one before."""
    return _LOWEST * 2.0 ** np.arange(1 + round(np.log2(_HIGHEST / _LOWEST)))
